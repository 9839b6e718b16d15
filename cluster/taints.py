"""What keeps pods off nodes, and what stands it: taints and tolerations as Kubernetes compares them."""

from __future__ import annotations

from cluster.base import Noun

REPELLING = ("NoSchedule", "NoExecute")
"""Effects of taints that keep new pods off a node; the latter also chases away what runs there."""


class Taint(Noun, kw_only=True, frozen=True):
    """A repulsion of pods that do not tolerate it."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    def __str__(self) -> str:
        """As `kubectl taint` writes it: `key=value:effect`."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


class Toleration(Noun, kw_only=True, frozen=True):
    """A taint that is stood; an empty key with Exists stands any, an empty effect each."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def stands(self, taint: Taint) -> bool:
        """Whether it covers the taint."""
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


def unstood(taints: tuple[Taint, ...], tolerates: tuple[Toleration, ...]) -> Taint | None:
    """The first taint that nothing stands; None when the pods may come."""
    for taint in taints:
        if not any(toleration.stands(taint) for toleration in tolerates):
            return taint
    return None
