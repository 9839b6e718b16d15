"""Looks at everything once a second: what may never be true, not even for a moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from controller.observe import labels

if TYPE_CHECKING:
    from tests.scenarios.stage import Stage


class Watchman:
    """Breaches of what must always hold, as sentences; `worst_watts` is the most each domain's members could draw."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.breaches: list[str] = []
        self.over_seconds = 0
        self.worst_watts: dict[str, int] = {}

    def look(self) -> None:
        """One look."""
        self._devices()
        self._gangs()
        self._power()

    def _note(self, what: str) -> None:
        self.breaches.append(f"{self._stage.now:.0f}: {what}")

    def _devices(self) -> None:
        """GPUs of bound pods fit on their node, and no device is given out more than once over, in shares or whole."""
        nodes = self._stage.seen.objects["Node"]
        held: dict[str, int] = defaultdict(int)
        users: dict[tuple[str, int, str], dict[str, int]] = defaultdict(dict)
        for pod in self._stage.seen.pods():
            node = pod["spec"].get("nodeName", "")
            if not node or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                continue
            held[node] += gpus_of(pod)
            for device in devices_of(pod):
                users[node, device, slices_of(pod)][pod["metadata"]["name"]] = milli_of(pod)
        for node, gpus in held.items():
            has = int(nodes.get(node, {}).get("status", {}).get("capacity", {}).get("nvidia.com/gpu", 0))
            if node in nodes and gpus > has:
                self._note(f"{node} has {has} GPUs, and pods for {gpus}")
        for (node, device, kind), names in users.items():
            if sum(names.values()) > 1_000:
                self._note(f"device {device} {kind} of {node} is given to {', '.join(sorted(names))}")
        self._slices(nodes)

    def _slices(self, nodes: Mapping[str, Any]) -> None:
        """Nor are more slices of a size given out than there are."""
        held: dict[tuple[str, str], int] = defaultdict(int)
        for pod in self._stage.seen.pods():
            node, kind = pod["spec"].get("nodeName", ""), slices_of(pod)
            if node in nodes and kind and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                held[node, kind] += int(pod["spec"]["containers"][0]["resources"]["limits"][kind])
        for (node, kind), count in held.items():
            has = int(nodes[node]["status"]["capacity"].get(kind, 0))
            if count > has:
                self._note(f"{node} has {has} of {kind}, and pods for {count}")

    def _gangs(self) -> None:
        doubled = self._stage.cluster.fleet.gangs.doubled
        if doubled:
            self._note(f"{doubled} gangs met while an older attempt still ran")
        running: dict[str, set[int]] = defaultdict(set)
        for meeting in self._stage.cluster.fleet.gangs.running():
            running[meeting.rendezvous.job_uid].add(meeting.rendezvous.attempt)
        for job, attempts in running.items():
            if len(attempts) > 1:
                self._note(f"attempts {sorted(attempts)} of {job} run at once")

    def _power(self) -> None:
        """What agents may draw by their own lease adds up to no more than any breaker carries."""
        domains = self._stage.seen.objects["PowerDomain"]
        if not domains or not self._stage.runs:
            return
        held = dict(self._stage.leases_held())
        for name, domain in self._stage.operator.observer.live("domains").items():
            if name not in domains:
                continue
            members = [m for m in domain.members if m in held]
            total = sum(held[m] for m in members)
            self._granted(name, domain)
            self.worst_watts[name] = max(self.worst_watts.get(name, 0), total)
            safe = sum(self._stage.cluster.fleet.nodes[m].spec.safe_watts for m in members)
            if total > max(domain.rating_watts, safe):
                self._note(f"{name}: leases of {total} W on a rating of {domain.rating_watts} W")
            drawn = self._stage.cluster.fleet.true_power_watts(members)
            self.over_seconds += drawn > max(domain.rating_watts, safe)

    def _granted(self, name: str, domain: Any) -> None:
        """By the operator's own book: what is leased, and safe watts where nothing is, within the limit."""
        leases = self._stage.operator.observer.live("leases")
        nodes = self._stage.cluster.fleet.nodes
        safe = {m: nodes[m].spec.safe_watts for m in domain.members if m in nodes}
        charged = sum(max(safe[m], leases[m].charged_watts if m in leases else 0) for m in safe)
        if charged > max(domain.limit_watts, sum(safe.values())):
            self._note(f"{name}: {charged} W are granted, {domain.limit_watts} W may be")


def gpus_of(pod: dict[str, Any]) -> int:
    """GPUs a pod asks for."""
    total = 0
    for container in pod["spec"].get("containers", []):
        limits = container.get("resources", {}).get("limits") or {}
        total += int(limits.get("nvidia.com/gpu", 0))
    return total


def devices_of(pod: dict[str, Any]) -> list[int]:
    """Devices that our own pods were told to use."""
    told = pod["metadata"].get("annotations", {}).get(labels.LAUNCH, "")
    found: list[int] = msgspec.json.decode(told).get("devices", []) if told else []
    return found


def milli_of(pod: dict[str, Any]) -> int:
    """Thousandths that one of our own pods was told to have of each of its devices."""
    told = pod["metadata"].get("annotations", {}).get(labels.LAUNCH, "")
    launch = msgspec.json.decode(told) if told else {}
    return int(launch.get("variant", {}).get("milli", 1_000))


def slices_of(pod: Mapping[str, Any]) -> str:
    """The resource of slices that a pod asks for; empty for whole boards."""
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return next((name for name in sorted(limits) if "/mig-" in name), "")
