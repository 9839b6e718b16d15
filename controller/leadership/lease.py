"""The Lease as a record: read, compared and written anew. Nothing here reads a clock or a store.

Durations are those of Kubernetes' own components (controller-runtime: 15 s, 10 s, 2 s; client-go: jitter 1.2).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from controller.observe import labels
from controller.store.interface import JsonObject
from controller.telling.clock_text import rfc3339_micro

LEASE_NAME = "plimsoll-operator"
RELEASED_SECONDS = 1
"""leaseDurationSeconds of a Lease that was given back; a holder emptied by hand keeps the old duration."""
MOST_LEASES = 10.0
"""A foreign duration counts for at most so many of ours: one written by hand must not lock everybody out."""

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How leadership is kept. All in seconds of the process' own monotonic clock.

    Whoever does not lead waits `lease_seconds` after the last change of the Lease that it saw. The leader stops
    acting `renew_deadline_seconds` after it sent the last renewal that was answered, which is earlier as long as no
    clock runs wrong by more than (lease - deadline) / (lease + deadline), a fifth with the defaults. A renewal that
    failed is tried again half of `retry_seconds` after it began; one that was answered is followed by the next after
    `renew_seconds`. Whoever waits looks every `retry_seconds`, times a random number from 1 to `jitter`; while it
    watches the Lease, at once when that tells of a change and else as often as the leader renews. One request is given up after `request_seconds`.
    """

    lease_seconds: Positive = 15.0
    renew_deadline_seconds: Positive = 10.0
    retry_seconds: Positive = 2.0
    jitter: Annotated[float, msgspec.Meta(ge=1.0)] = 1.2
    request_seconds: Positive = 4.0

    @property
    def renew_seconds(self) -> float:
        """Time from one renewal to the next: half of the deadline, where two more tries fit behind it.

        Renewing more often gains nothing: a successor waits from the last change, and the worst case is a leader that
        dies just after one. It costs requests: every 2 s, as other operators do, is 30 a minute for ever.
        """
        half = self.renew_deadline_seconds / 2.0
        fits = half + 2.0 * self.retry_seconds < self.renew_deadline_seconds
        return max(self.retry_seconds, half) if fits else self.retry_seconds

    def __post_init__(self) -> None:
        """Refuse durations that cannot work together. Raises ValueError with a sentence."""
        if not self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(
                f"renew_deadline_seconds {self.renew_deadline_seconds:g} must be below lease_seconds "
                f"{self.lease_seconds:g}: a leader stops before another may begin"
            )
        if not self.retry_seconds * self.jitter < self.renew_deadline_seconds:
            raise ValueError(
                f"retry_seconds {self.retry_seconds:g} times jitter {self.jitter:g} must be below "
                f"renew_deadline_seconds {self.renew_deadline_seconds:g}: one lost renewal must not end a leadership"
            )


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a Lease says. `life` changes exactly when a holder (or somebody by hand) changed its specification."""

    holder: str
    lease_seconds: float
    transitions: int
    epoch: int
    life: tuple[str, ...]
    raw: JsonObject

    @property
    def released(self) -> bool:
        """Whether its last holder gave it back, so that nobody acts under it."""
        return not self.holder and 0.0 < self.lease_seconds <= RELEASED_SECONDS


def read(lease: JsonObject) -> Record:
    """The record of a Lease object, whatever people wrote into it by hand."""
    spec = lease.get("spec") or {}
    meta = lease.get("metadata") or {}
    text = str((meta.get("annotations") or {}).get(labels.EPOCH, ""))
    keys = ("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions")
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        lease_seconds=float(_count(spec.get("leaseDurationSeconds"))),
        transitions=_count(spec.get("leaseTransitions")),
        epoch=int(text) if text.isascii() and text.isdecimal() and len(text) < EPOCH_DIGITS else 0,
        life=(str(meta.get("uid", "")), *(str(spec.get(key, "")) for key in keys)),
        raw=lease,
    )


EPOCH_DIGITS = 15
"""An annotation longer than this was not written by us, and as an epoch it would leave no room above it."""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def held(
    old: Record | None, namespace: str, identity: str, epoch: int, settings: LeaseSettings, now_seconds: float
) -> JsonObject:
    """The Lease as `identity` holds it under `epoch`; `old` lends its version, labels and foreign fields."""
    metadata: dict[str, Any] = dict((old.raw if old else {}).get("metadata") or {})
    metadata |= {"name": LEASE_NAME, "namespace": namespace}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), labels.EPOCH: str(epoch)}
    spec: dict[str, Any] = dict((old.raw if old else {}).get("spec") or {})
    stamp = rfc3339_micro(now_seconds)
    if old is None or old.holder != identity or "acquireTime" not in spec:
        spec["acquireTime"] = stamp
        spec["leaseTransitions"] = (old.transitions if old else 0) + 1
    spec["holderIdentity"] = identity
    spec["leaseDurationSeconds"] = math.ceil(settings.lease_seconds)
    spec["renewTime"] = stamp
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def released(old: Record, now_seconds: float) -> JsonObject:
    """The Lease given back: no holder, and nothing to wait for. The epoch stays."""
    spec = dict(old.raw.get("spec") or {})
    spec |= {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_SECONDS,
        "renewTime": rfc3339_micro(now_seconds),
    }
    return {**old.raw, "spec": spec}
