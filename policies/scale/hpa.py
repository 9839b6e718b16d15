"""The Kubernetes HPA form on measured load: the baseline every other scaling policy must beat.

    wanted = measured / target      when |measured / (planned * target) - 1| > tolerance, else planned

which is ceil(current * metric / target) with capacity in requests per second instead of replicas. Re-decided
every 15 s, up by at most max(100 %, 4 reference units) a period, down to the highest recommendation of the last
300 s (research: autoscaling §3). Capacity exists before load was measured (the user's expectation), stays while
the service is kept warm, and comes back at once when requests wait at the gateway.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from cluster.plan import Context, Decision
from cluster.reasons import Reason, Verdict
from cluster.serving import ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, LoadShape, Mix
from policies.draft import Draft, quantity
from policies.frames import Floats, Frame, frame_of
from policies.groups import Groups, in_scope
from policies.ladder import rung_down, rung_up
from policies.loads import Load, load_of
from policies.shapes import blended, declared, differ, measured

Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class HpaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy; defaults are those of the HPA controller.

    `target`: share of the planned rate that measured load should be. `tolerance`: relative deviation that
    is left alone. `sync_seconds`: between decisions. `stabilisation_seconds`: how long the highest
    recommendation holds capacity. `up_share`, `up_units`: most that is added a period, as a share of what is
    planned and in reference units; the larger counts. `held_drain_seconds`: time in which held requests are
    to be worked off. `stale_seconds`: age from which a measurement may not scale down. `rung_ratio`: step of
    the rate ladder. `shape_tolerance`: relative move of request sizes that makes a new plan worth it.
    `shape_requests`: requests after which a new shape counts as much as all before.
    """

    target: Share = 0.7
    tolerance: Annotated[float, msgspec.Meta(ge=0.0)] = 0.1
    sync_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 15.0
    stabilisation_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 300.0
    up_share: Positive = 1.0
    up_units: Annotated[int, msgspec.Meta(ge=0)] = 4
    held_drain_seconds: Positive = 60.0
    stale_seconds: Positive = 60.0
    rung_ratio: Annotated[float, msgspec.Meta(gt=1.0)] = 1.05
    shape_tolerance: Positive = 0.1
    shape_requests: Positive = 500.0


class Advice(msgspec.Struct, frozen=True, gc=False):
    """What was recommended when (UTC seconds, requests/s)."""

    at_seconds: float
    per_second: float


class ServiceMemory(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Recommendations inside the stabilisation window, oldest first, and the running shape of the load."""

    synced_seconds: float
    advice: tuple[Advice, ...] = ()
    shape: LoadShape | None = None
    shape_seconds: float = 0.0


class HpaState(msgspec.Struct, frozen=True, kw_only=True):
    """Memory per service."""

    schema: int = 1
    services: dict[str, ServiceMemory] = {}


class _Case(NamedTuple):
    """One service under decision."""

    service: Service
    load: Load
    standing: Capacity | None
    memory: ServiceMemory
    frame: Frame
    shape: LoadShape
    shares: Floats
    ready: int


class _Want(NamedTuple):
    """Requests/s wanted and the code of the reason; empty when there is nothing to say."""

    per_second: float
    code: str


class Hpa:
    """`Policy[Snapshot, HpaState]`: one `Capacity` proposal per service whose wanted size or shape changed."""

    def __init__(self, config: HpaConfig | None = None) -> None:
        self._config = config or HpaConfig()

    def initial(self) -> HpaState:
        """No memory: nothing shrinks before a full stabilisation window has been seen."""
        return HpaState()

    def decide(self, view: Snapshot, state: HpaState, ctx: Context) -> Decision[HpaState]:
        """Propose capacity for every service of the scope."""
        groups, draft = Groups(view), Draft()
        memories: dict[str, ServiceMemory] = {}
        for service in in_scope(view, ctx):
            case = self._case(groups, service, state, ctx)
            memories[service.name] = self._decide(case, ctx, draft, view)
        return Decision(draft.plan(), HpaState(services=dict(sorted(memories.items()))))

    # ------------------------------------------------------------------------------------------ what is known

    def _case(self, groups: Groups, service: Service, state: HpaState, ctx: Context) -> _Case:
        now = ctx.now_seconds
        standing = groups.view.capacity(service.name)
        memory = state.services.get(service.name)
        if memory is None:
            # Like the HPA after a restart: what stands is the first recommendation.
            known = (Advice(now, standing.wanted_per_second),) if standing else ()
            memory = ServiceMemory(synced_seconds=-1e18, advice=known, shape_seconds=now)
        load = load_of(groups, service, now, self._config.stale_seconds)
        frame = frame_of(groups, service, ctx.scratch)
        memory = self._learn_shape(groups, service, memory, load, now)
        shape = self._planned_shape(service, standing, memory)
        ready = sum(1 for r in groups.replicas.get(service.name, []) if r.phase is ReplicaPhase.READY)
        return _Case(service, load, standing, memory, frame, shape, frame.shares(shape), ready)

    def _learn_shape(
        self, groups: Groups, service: Service, memory: ServiceMemory, load: Load, now: float
    ) -> ServiceMemory:
        """Move the running shape towards the measured one, by how many requests that stands for."""
        seen = measured(groups.loads.get(service.name, [])) if load.fresh else None
        if seen is None:
            return msgspec.structs.replace(memory, shape_seconds=now)
        requests = load.per_second * max(0.0, now - memory.shape_seconds)
        weight = requests / (requests + self._config.shape_requests)
        old = memory.shape or declared(service)
        return msgspec.structs.replace(memory, shape=blended(old, seen, weight), shape_seconds=now)

    def _planned_shape(self, service: Service, standing: Capacity | None, memory: ServiceMemory) -> LoadShape:
        """The standing plan's shape while it still fits, else the running one."""
        planned = standing.shape if standing is not None else None
        if memory.shape is None:
            return planned or declared(service)
        if planned is not None and not differ(planned, memory.shape, self._config.shape_tolerance):
            return planned
        return memory.shape

    # ---------------------------------------------------------------------------------------------- deciding

    def _decide(self, case: _Case, ctx: Context, draft: Draft, view: Snapshot) -> ServiceMemory:
        now, standing = ctx.now_seconds, case.standing
        floor = min(max(case.service.floor_units, case.service.replicas), case.service.ceiling_units)
        cold = self._cold(case, view, floor, now)
        units = floor if cold else self._kept_units(case, view, floor, now)
        if not case.load.fresh and case.load.seen:
            draft.miss(f"load of {case.service.name}")
        memory = case.memory
        planned = standing.wanted_per_second if standing else 0.0
        due = now - memory.synced_seconds >= self._config.sync_seconds
        if cold:
            was_running = planned > 0.0 or (standing is not None and standing.wanted_units > 0)
            want = _Want(0.0, "ScaledToZero" if was_running else "")
        elif standing is None or due or self._waking(case):
            want = self._recommend(case, planned)
            memory = self._remember(memory, want.per_second, now)
            want = self._stabilised(want, planned, memory)
        else:
            want = _Want(planned, "")
        bounded = min(want.per_second, self._ceiling(case))
        if want.code or bounded < want.per_second:
            draft.because(self._reason(case, want, bounded, planned))
        self._propose(case, bounded, units, now, draft)
        return memory

    def _cold(self, case: _Case, view: Snapshot, floor: int, now: float) -> bool:
        """Nothing is asked for, the user wants no floor, and the keep-alive has passed: zero, at once."""
        load, warm = case.load, view.warm(case.service.name)
        if floor > 0 or load.per_second > 0.0 or load.held > 0.0 or (load.seen and not load.fresh):
            return False
        return warm is not None and warm.keep_until_seconds is not None and now >= warm.keep_until_seconds

    def _kept_units(self, case: _Case, view: Snapshot, floor: int, now: float) -> int:
        """Least capacity in reference units: the user's floor, and one while the service is kept warm."""
        warm, standing = view.warm(case.service.name), case.standing
        kept = warm is not None and warm.keep_until_seconds is not None and now < warm.keep_until_seconds
        active = standing is not None and (standing.wanted_units > 0 or standing.wanted_per_second > 0.0)
        return min(max(floor, 1), case.service.ceiling_units) if kept and active else floor

    def _waking(self, case: _Case) -> bool:
        """Requests wait and nothing is planned for them."""
        planned = case.standing is not None and case.standing.wanted_per_second > 0.0
        return not planned and (case.load.held > 0.0 or case.load.per_second > 0.0)

    def _recommend(self, case: _Case, planned: float) -> _Want:
        """What the HPA's formula says now, without memory."""
        config, load, service = self._config, case.load, case.service
        demand = load.per_second + load.held / config.held_drain_seconds
        if not load.seen:
            # Without a floor the declared load sizes the first start; the first request begins it.
            floor = max(service.floor_units, service.replicas)
            demand = service.expected_requests_per_second if floor else 0.0
            return _Want(
                rung_up(demand / config.target, config.rung_ratio), "ScaledUp" if demand > planned else ""
            )
        if not load.fresh:
            return _Want(planned, "ScaleHeld")
        if planned <= 0.0:
            if demand <= 0.0:
                return _Want(0.0, "")
            demand = max(demand, service.expected_requests_per_second)
            return _Want(rung_up(demand / config.target, config.rung_ratio), "ScaledFromZero")
        ratio = demand / (planned * config.target)
        if abs(ratio - 1.0) <= config.tolerance:
            return _Want(planned, "ScaleHeld")
        wanted = rung_up(demand / config.target, config.rung_ratio)
        return _Want(
            wanted, "ScaledUp" if wanted > planned else "ScaledDown" if wanted < planned else "ScaleHeld"
        )

    def _remember(self, memory: ServiceMemory, per_second: float, now: float) -> ServiceMemory:
        """Append the recommendation; drop what left the window or can never be the highest any more."""
        since = now - self._config.stabilisation_seconds
        kept = [a for a in memory.advice if a.at_seconds > since and a.per_second > per_second]
        return msgspec.structs.replace(memory, synced_seconds=now, advice=(*kept, Advice(now, per_second)))

    def _stabilised(self, want: _Want, planned: float, memory: ServiceMemory) -> _Want:
        """Down only to the highest recommendation of the window."""
        if want.per_second >= planned:
            return want
        highest = max(a.per_second for a in memory.advice)
        return _Want(min(planned, highest), "ScaledDown" if highest < planned else "ScaleHeld")

    def _ceiling(self, case: _Case) -> float:
        """Most requests/s that may be planned for: the user's ceiling, and what one period may add."""
        reference = case.frame.reference
        if reference is None:
            return float("inf")
        config = self._config
        ceiling = case.frame.carried_by(reference, case.service.ceiling_units, case.shares)
        ceiling = rung_down(ceiling, config.rung_ratio)
        planned = case.standing.wanted_per_second if case.standing else 0.0
        if planned > 0.0:
            unit = case.frame.unit_rate(reference, case.shares)
            most = max(planned * (1.0 + config.up_share), planned + config.up_units * unit)
            ceiling = min(ceiling, max(planned, rung_down(most, config.rung_ratio)))
        return ceiling

    # --------------------------------------------------------------------------------------------- telling

    def _propose(self, case: _Case, per_second: float, units: int, now: float, draft: Draft) -> None:
        standing = case.standing
        if (
            standing is not None
            and standing.owner != "user"
            and standing.wanted_per_second == per_second
            and standing.wanted_units == units
            and standing.shape == case.shape
        ):
            return
        draft.aim(
            Capacity(
                owner="scale",
                decided_seconds=now,
                service=case.service.name,
                mix=standing.mix if standing is not None else Mix(),
                wanted_per_second=per_second,
                wanted_units=units,
                shape=case.shape,
            )
        )

    def _reason(self, case: _Case, want: _Want, bounded: float, planned: float) -> Reason:
        load, service = case.load, case.service
        demand = load.per_second if load.seen else service.expected_requests_per_second
        need, have = quantity("load", demand, "req/s"), quantity("planned", planned, "req/s")
        wanted = quantity("wanted", bounded, "req/s")
        target = quantity("target", self._config.target, "ratio")
        subject, verdict = service.ref, Verdict.CHOSEN
        if bounded < want.per_second:
            ceiling = bool(planned <= 0.0 or bounded > planned)
            return Reason(
                code="ScaleBounded", subject=subject, verdict=Verdict.CAPPED,
                choice="one period's growth" if ceiling and planned > 0.0 else "spec.maxReplicas",
                need=quantity("wanted", want.per_second, "req/s"), have=quantity("bounded", bounded, "req/s"),
                limit=quantity("ceiling", service.ceiling_units, "replicas"), facts=(wanted,),
            )  # fmt: skip
        if want.code == "ScaledFromZero":
            return Reason(
                code="ScaledFromZero", subject=subject, verdict=verdict, need=quantity("held", load.held, "req"),
                have=quantity("ready", case.ready, "replicas"), limit=wanted, facts=(wanted,),
            )  # fmt: skip
        if want.code == "ScaledToZero":
            return Reason(
                code="ScaledToZero", subject=subject, verdict=verdict, need=quantity("units", 0, "replicas"),
                have=quantity("idle", load.idle_seconds or 0.0, "s"),
                limit=quantity("keep_alive", service.keep_alive_seconds, "s"),
            )  # fmt: skip
        limit = quantity("tolerance", self._config.tolerance, "ratio") if want.code == "ScaleHeld" else target
        if want.code == "ScaleHeld":
            verdict = Verdict.KEPT
        return Reason(
            code=want.code,
            subject=subject,
            verdict=verdict,
            need=need,
            have=have,
            limit=limit,
            facts=(wanted,),
        )
