"""What a kubelet has to say of a pod."""

from __future__ import annotations

import msgspec


class Report(msgspec.Struct, frozen=True):
    """What the store should say of a pod."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    ready: bool = False
    """Whether its containers are."""
    served: bool = False
    """Whether its engine listens: the endpoint is to be written before it is called ready."""
    closed_gates: tuple[str, ...] = ()
    """Readiness gates of the pod that nobody has opened: with any, its containers are ready and it is not."""
    started_seconds: float | None = None
    ready_since_seconds: float = 0.0
    held: bool = False
    """Whether its container waits for something that may never come."""
    unmounted: bool = False
    fault: bool = False
    """Whether its container cannot be run: `reason` and `message` say why."""
    restarts: int = 0
