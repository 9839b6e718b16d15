"""The book of requests: open ones as objects, ended ones as numbers."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.physics.sequence import Handover
from simulator.world.instances import Instance


class Open:
    """A request that has not ended. `epoch` counts its owners, `since` is when the present one got it.

    `tried` counts its moves, those that failed too.
    """

    __slots__ = (
        "arrived",
        "epoch",
        "first",
        "instance",
        "key",
        "moves",
        "output",
        "prefix",
        "priority",
        "prompt",
        "service",
        "since",
        "tried",
    )

    def __init__(
        self,
        key: int,
        arrived: float,
        prompt: int,
        output: int,
        prefix: tuple[int, ...],
        service: Any,
        priority: int = 0,
    ) -> None:
        self.key, self.arrived, self.prompt, self.output, self.prefix = key, arrived, prompt, output, prefix
        self.service, self.priority = service, priority
        self.instance: Instance | None = None
        self.epoch = self.moves = self.tried = 0
        self.first = self.since = 0.0

    def handover(self, generated: int) -> Handover:
        """What another engine must know to go on with it."""
        return Handover(
            request_id=self.key, prompt_tokens=self.prompt, output_tokens=self.output, generated_tokens=generated,
            arrived_seconds=self.arrived, priority=self.priority, prefix=self.prefix,
        )  # fmt: skip


class Book:
    """Requests by number; each ends once: finished or refused."""

    __slots__ = (
        "_finished",
        "_output",
        "_priority",
        "_service",
        "_tpot",
        "_ttft",
        "aborted",
        "arrived",
        "handed",
        "moved",
        "open",
        "refused",
        "refused_of",
        "replayed",
    )

    def __init__(self) -> None:
        self.open: dict[int, Open] = {}
        self.arrived = self.refused = self.moved = self.aborted = self.handed = self.replayed = 0
        self._ttft, self._tpot, self._finished = array("d"), array("d"), array("d")
        self._output, self._service = array("l"), array("H")
        self._priority = array("h")
        self.refused_of: Counter[int] = Counter()
        """Requests turned away, by priority."""

    def begin(
        self,
        arrived: float,
        prompt: int,
        output: int,
        prefix: tuple[int, ...],
        service: Any,
        priority: int = 0,
    ) -> Open:
        """A request of a service arrives."""
        key = self.arrived
        self.arrived = key + 1
        service.arrived += 1
        request = self.open[key] = Open(key, arrived, prompt, output, prefix, service, priority)
        return request

    def finish(self, key: int, at_seconds: float, tokens: int) -> None:
        """The last token of a request is out."""
        request = self.open.pop(key)
        outputs = request.service.outputs
        if outputs is not None:
            outputs.learn(request.prompt, tokens)
        self._ttft.append(request.first - request.arrived)
        self._tpot.append((at_seconds - request.first) / max(tokens - 1, 1))
        self._finished.append(at_seconds)
        self._output.append(tokens)
        self._service.append(request.service.number)
        self._priority.append(request.priority)

    def refuse(self, key: int) -> None:
        """A request is turned away."""
        request = self.open.pop(key)
        request.service.refused += 1
        self.refused += 1
        self.refused_of[request.priority] += 1

    @property
    def completed(self) -> int:
        """Requests that finished."""
        return len(self._ttft)

    @property
    def ttft_seconds(self) -> NDArray[np.float64]:
        """Seconds to the first token [completed], in order of finish."""
        return np.array(self._ttft)

    @property
    def tpot_seconds(self) -> NDArray[np.float64]:
        """Seconds per further token [completed]; 0 for a single one."""
        return np.array(self._tpot)

    @property
    def finished_seconds(self) -> NDArray[np.float64]:
        """When each finished [completed]."""
        return np.array(self._finished)

    @property
    def output_tokens(self) -> NDArray[np.int64]:
        """Tokens of each [completed]."""
        return np.array(self._output, dtype=np.int64)

    @property
    def services(self) -> NDArray[np.uint16]:
        """Number of the service of each [completed]."""
        return np.array(self._service, dtype=np.uint16)

    @property
    def priorities(self) -> NDArray[np.int16]:
        """Priority of each [completed]."""
        return np.array(self._priority, dtype=np.int16)

    def arrived_of(self, priority: int) -> int:
        """Requests of a priority that arrived: finished, refused or open."""
        still = sum(1 for request in self.open.values() if request.priority == priority)
        return int((self.priorities == priority).sum()) + self.refused_of[priority] + still
