"""Transfers that cross several links at once, event by event: NICs, PCIe switches, storage.

A transfer goes over a path of links. Rates are max-min fair (Bertsekas and Gallager, Data Networks, §6.5.2): all rise
together until a link is full; what crosses that link keeps its rate, the others go on rising. A transfer may put only a share
of its bytes on a link (weights that are spread over the switches of several GPUs), so a link carries
``sum of share x rate <= bytes per second``. On one link with shares of 1 this is `SharedLink`, which is cheaper.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping

Path = Mapping[str, float]
"""Links of a transfer, and which share of its bytes goes over each."""


class _Flow:
    """One transfer under way: `left` bytes at `since`, moving at `rate`."""

    __slots__ = ("left", "name", "path", "rate", "since", "version")

    def __init__(self, name: str, path: Path, size_bytes: float, at: float) -> None:
        self.name, self.path, self.left, self.since = name, path, size_bytes, at
        self.rate, self.version = 0.0, 0


class FlowNetwork:
    """Links by name, and the transfers that cross them."""

    __slots__ = ("_capacity", "_ends", "_flows", "_on", "_order", "now")

    def __init__(self, started_seconds: float = 0.0) -> None:
        """No links yet; `link` makes them."""
        self.now = started_seconds
        self._capacity: dict[str, float] = {}
        self._on: dict[str, dict[str, _Flow]] = {}
        self._flows: dict[str, _Flow] = {}
        self._ends: list[tuple[float, int, str, int]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._flows)

    def link(self, name: str, bytes_per_second: float) -> str:
        """Make a link, or leave it as it is where there is one of that name; returns the name.

        ValueError unless it carries something.
        """
        if not bytes_per_second > 0.0:
            raise ValueError(f"link {name} has {bytes_per_second} bytes/s; it must carry something")
        if name not in self._capacity:
            self._capacity[name] = bytes_per_second
            self._on[name] = {}
        return name

    def begin(self, name: str, path: Path, size_bytes: float) -> None:
        """Start a transfer now. ValueError for a name that is active, an empty path, a link that is not there, or a share
        that is not positive.
        """
        if name in self._flows:
            raise ValueError(f"transfer {name} is already active; end it before starting it again")
        if not path:
            raise ValueError(f"transfer {name} crosses no link; give its path")
        for link, share in path.items():
            if link not in self._capacity:
                raise ValueError(f"transfer {name} crosses {link}, which is no link here; make it first")
            if not share > 0.0:
                raise ValueError(f"transfer {name} puts a share of {share} on {link}; it must be positive")
        flow = self._flows[name] = _Flow(name, path, size_bytes, self.now)
        for link in path:
            self._on[link][name] = flow
        self._rise(path)

    def cancel(self, name: str) -> bool:
        """Drop a transfer now; False when it is not active."""
        flow = self._flows.get(name)
        if flow is None:
            return False
        self._end(flow)
        return True

    def rate(self, name: str) -> float:
        """Bytes per second that a transfer moves at now; 0 when it is not active."""
        flow = self._flows.get(name)
        return flow.rate if flow is not None else 0.0

    def next_event_seconds(self) -> float:
        """When the next transfer is done; infinity when none is active."""
        ends = self._ends
        while ends and not self._holds(ends[0]):
            heapq.heappop(ends)
        return max(ends[0][0], self.now) if ends else math.inf

    def advance_to(self, until_seconds: float) -> list[tuple[float, str]]:
        """Move bytes until then; returns (second, name) of the transfers that ended, in order."""
        done: list[tuple[float, str]] = []
        while (at := self.next_event_seconds()) <= until_seconds:
            name = heapq.heappop(self._ends)[2]
            self.now = at
            self._end(self._flows[name])
            done.append((at, name))
        self.now = max(self.now, until_seconds)
        return done

    def _holds(self, entry: tuple[float, int, str, int]) -> bool:
        flow = self._flows.get(entry[2])
        return flow is not None and flow.version == entry[3]

    def _end(self, flow: _Flow) -> None:
        del self._flows[flow.name]
        for link in flow.path:
            del self._on[link][flow.name]
        self._rise(flow.path)

    def _rise(self, links: Iterable[str]) -> None:
        """Share the links anew, and all that hang together with them through some transfer."""
        reached, found = dict.fromkeys(links), {}
        todo = list(reached)
        while todo:
            for flow in self._on[todo.pop()].values():
                if flow.name in found:
                    continue
                found[flow.name] = flow
                fresh = [link for link in flow.path if link not in reached]
                reached |= dict.fromkeys(fresh)
                todo += fresh
        for flow, rate in self._fair(list(found.values()), reached):
            if rate != flow.rate:
                flow.left = max(flow.left - flow.rate * (self.now - flow.since), 0.0)
                flow.since, flow.rate = self.now, rate
                self._order += 1
                flow.version = self._order  # never one that another transfer of this name has had
                at = self.now + flow.left / rate
                heapq.heappush(self._ends, (at, self._order, flow.name, flow.version))

    def _fair(self, flows: list[_Flow], links: Iterable[str]) -> list[tuple[_Flow, float]]:
        """Progressive filling: the link that is full first fixes what crosses it."""
        room = {link: self._capacity[link] for link in links}
        load = {link: sum(flow.path[link] for flow in self._on[link].values()) for link in room}
        users = {link: len(self._on[link]) for link in room}
        rising = {flow.name: flow for flow in flows}
        fixed: list[tuple[_Flow, float]] = []
        while rising:
            full = min((link for link in room if users[link]), key=lambda link: room[link] / load[link])
            rate = room[full] / load[full]
            for name in [name for name in self._on[full] if name in rising]:
                flow = rising.pop(name)
                fixed.append((flow, rate))
                for link, share in flow.path.items():
                    room[link] = max(room[link] - share * rate, 0.0)
                    load[link] -= share
                    users[link] -= 1
        return fixed
