"""What each agent told of itself and its node beside what decisions are made of: for people who look at the node."""

from __future__ import annotations

import msgspec

from controller.hub.messages import HolderSeen, HoldersSeen, NodeReport, WeightsSeen


class AgentTold(msgspec.Struct, frozen=True, kw_only=True):
    """The newest of each part. `holders` None: the agent asks no kubelet."""

    boot_id: str = ""
    version: str = ""
    weights: tuple[WeightsSeen, ...] = ()
    holders: HoldersSeen | None = None

    def then(self, report: NodeReport) -> AgentTold:
        """After a further report. A new boot of the agent has told nothing yet."""
        known = self if report.boot_id == self.boot_id else AgentTold()
        if (
            known is self
            and report.version == self.version
            and report.weights in {None, self.weights}
            and report.holders in {None, self.holders}
        ):
            return self
        return AgentTold(
            boot_id=report.boot_id,
            version=report.version,
            weights=known.weights if report.weights is None else report.weights,
            holders=known.holders if report.holders is None else report.holders,
        )

    def pods_of(self, device: int) -> list[str]:
        """Pods that hold a device or a slice of it, `namespace/name`, sorted, each once."""
        return sorted({row.pod for row in self._rows() if row.device == device})

    def devices_of(self, pod: str) -> list[int]:
        """Devices that a pod has, however it came by them, sorted."""
        return sorted({row.device for row in self._rows() if row.pod == pod and row.device >= 0})

    def plugged_of(self, pod: str) -> list[int]:
        """Devices that a pod has from a device plugin, sorted; those of ResourceClaims are the claims'."""
        return sorted(
            {r.device for r in self._rows() if r.pod == pod and r.device >= 0 and "(" not in r.resource}
        )

    def strays(self) -> list[HolderSeen]:
        """Rows of devices that the node's driver does not know."""
        return [row for row in self._rows() if row.device < 0]

    def offers(self, device: int) -> bool:
        """Whether the kubelet would give the device to pods; True where it does not say."""
        held = self.holders
        return held is None or held.offered is None or device in held.offered

    def _rows(self) -> tuple[HolderSeen, ...]:
        return self.holders.rows if self.holders is not None else ()
