"""Fixed keep-alive: the last replica of an idle service stays for a fixed time after the last arrival.

The baseline of every cloud (60 s to 20 min; research: cold-start §1). It only writes the `Warm` target; the scale
stage keeps one unit while `keep_until_seconds` lies ahead and may go to zero after it. A service that nobody ever
called gets one keep-alive from when it was first seen, so that a declared load does not hold GPUs for ever.
"""

from __future__ import annotations

import msgspec

from cluster.plan import Context, Decision
from cluster.reasons import Reason, Verdict
from cluster.serving import ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.targets import Warm
from policies.draft import Draft, quantity
from policies.groups import Groups, in_scope
from policies.loads import load_of


class FixedKeepaliveConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `keep_alive_seconds`: overrides every service's own keep-alive; None leaves it to them. `stale_seconds`: a
    service whose load measurement is older is kept warm, since nobody knows that it is idle. `busy_step`: while
    requests arrive the target is rewritten only when it lags by this share of the keep-alive; from the moment
    they stop it is exact.
    """

    keep_alive_seconds: float | None = None
    stale_seconds: float = 60.0
    busy_step: float = 0.1


class FixedKeepaliveState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned; what stands is in the view."""

    schema: int = 1


class FixedKeepalive:
    """`Policy[Snapshot, FixedKeepaliveState]`: one `Warm` target per service of the scope."""

    def __init__(self, config: FixedKeepaliveConfig | None = None) -> None:
        self._config = config or FixedKeepaliveConfig()

    def initial(self) -> FixedKeepaliveState:
        """The one state there is."""
        return FixedKeepaliveState()

    def decide(
        self, view: Snapshot, state: FixedKeepaliveState, ctx: Context
    ) -> Decision[FixedKeepaliveState]:
        """Set until when each service keeps its last replica."""
        groups, draft = Groups(view), Draft()
        for service in in_scope(view, ctx):
            self._decide(groups, service, draft, ctx.now_seconds)
        return Decision(draft.plan(), state)

    def _decide(self, groups: Groups, service: Service, draft: Draft, now: float) -> None:
        config = self._config
        keep = service.keep_alive_seconds if config.keep_alive_seconds is None else config.keep_alive_seconds
        load = load_of(groups, service, now, config.stale_seconds)
        standing = groups.view.warm(service.name)
        until = standing.keep_until_seconds if standing is not None else None
        if load.seen and not load.fresh:
            draft.miss(f"load of {service.name}")
            wanted = max(now + keep, until or 0.0)
        elif load.idle_seconds is not None:
            wanted = now - load.idle_seconds + keep
        else:
            wanted = now + keep if until is None else until
        busy = load.idle_seconds == 0.0 or (load.seen and not load.fresh)
        if until is not None and busy and now < until and abs(wanted - until) < config.busy_step * keep:
            wanted = until
        ready = sum(1 for r in groups.replicas.get(service.name, []) if r.phase is ReplicaPhase.READY)
        if wanted != until:
            copies = {"awake": 1 if wanted > now else 0}
            draft.aim(
                Warm(
                    owner="warm", decided_seconds=now, service=service.name, copies=copies,
                    keep_until_seconds=wanted,
                )
            )  # fmt: skip
        idle = max(0.0, now - (wanted - keep))
        if idle > 0.0 and ready and not busy:
            code, verdict = ("KeptWarm", Verdict.KEPT) if wanted > now else ("WentCold", Verdict.CHOSEN)
            draft.because(
                Reason(
                    code=code, subject=service.ref, verdict=verdict,
                    need=quantity("copies", 1 if wanted > now else 0, "replicas"),
                    have=quantity("idle", idle, "s"), limit=quantity("keep_alive", keep, "s"),
                )
            )  # fmt: skip
