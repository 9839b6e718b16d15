"""Small worlds around a gateway core: routes, engines that answer when told to, and the books that must balance."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core import GatewayConfig, GatewayCore
from gateway.messages import (
    Arrival,
    ClassRoute,
    End,
    Ending,
    EngineEvent,
    EngineLoad,
    EngineReport,
    EventKind,
    InstanceRoute,
    Outbox,
    RouteState,
    RouteTable,
    ServiceRoute,
    Submission,
    Window,
)
from policies.dispatch.least_outstanding import LeastOutstanding

CHAT = "shop/chat"


def core(**config: object) -> GatewayCore:
    return GatewayCore(GatewayConfig(**config), {"least_outstanding": LeastOutstanding()})  # type: ignore[arg-type]


def instance(
    name: str, node: str, weight: float = 1.0, state: RouteState = RouteState.READY, uid: str = ""
) -> InstanceRoute:
    return InstanceRoute(f"shop/{name}", node, f"{node}:9000", weight, state, uid=uid)


def service(
    *instances: InstanceRoute, name: str = CHAT, hold_limit: int = 100, hold_deadline: float = 60.0
) -> ServiceRoute:
    return ServiceRoute(
        name,
        classes=(ClassRoute("interactive", ttft_seconds=2.0, tpot_seconds=0.1),),
        hold_limit=hold_limit,
        hold_deadline_seconds=hold_deadline,
        instances=instances,
    )


def arrival(
    tag: int, at: float, prompt: int = 100, output: int = 50, name: str = CHAT, **more: object
) -> Arrival:
    return Arrival(tag, name, prompt, output, at, **more)  # type: ignore[arg-type]


class World:
    """A core with its clock at window boundaries, and engines that hold what they were sent until told."""

    def __init__(self, gateway: GatewayCore | None = None) -> None:
        self.core = gateway or core()
        self.now = 0.0
        self.tick = 0
        self.version = 0
        self.sequence = 0
        self.held: dict[tuple[int, int], Submission] = {}
        self.sent: list[Submission] = []
        self.cancelled: list[tuple[int, int]] = []
        self.endings: list[Ending] = []
        self.urgent = False

    def route(self, *services: ServiceRoute, epoch: int = 1, up: bool = True) -> bool:
        self.version += 1
        taken = self.core.apply_routes(RouteTable(epoch, self.version, services), self.now)
        if up:
            for node in self.core.nodes:
                self.core.node_up(node, self.now)
        return taken

    def step(self, *arrivals: Arrival, seconds: float = 1.0) -> Outbox:
        self.tick += 1
        window = Window(self.tick, self.now, self.now + seconds)
        out = self.core.step(window, arrivals)
        self.now += seconds
        new: list[Submission] = []
        for frame in out.frames.values():
            assert frame.tick == self.tick
            for cancel in frame.cancels:
                self.cancelled.append((cancel.request_id, cancel.epoch))
                self.held.pop((cancel.request_id, cancel.epoch), None)
            for submission in frame.submissions:
                self.held[submission.request_id, submission.epoch] = submission
                new.append(submission)
        self.sent.extend(sorted(new, key=lambda s: (s.submitted_seconds, s.request_id)))
        self.endings.extend(out.endings)
        self.urgent = out.urgent
        return out

    def event(
        self, submission: Submission, kind: EventKind, at: float | None = None, tokens: int = 0
    ) -> EngineEvent:
        return EngineEvent(
            submission.request_id,
            submission.epoch,
            submission.instance,
            kind,
            self.now if at is None else at,
            tokens,
        )

    def serve(
        self, submissions: Iterable[Submission], first: float | None = None, last: float | None = None
    ) -> list[EngineEvent]:
        """First token and end of each, and forget them."""
        events = []
        for submission in submissions:
            self.held.pop((submission.request_id, submission.epoch), None)
            events.append(self.event(submission, EventKind.FIRST_TOKEN, first, 1))
            events.append(self.event(submission, EventKind.FINISHED, last, submission.output_tokens))
        return events

    def frame(
        self,
        node: str,
        events: Iterable[EngineEvent] = (),
        absent: Iterable[str] = (),
        tick: int | None = None,
    ) -> EngineReport:
        """A frame of the node that lists all routed instances of it but the absent ones, with their true load."""
        self.sequence += 1
        names = [
            row.name
            for state in self.core.services.values()
            for row in state.rows.ordered
            if row.node == node and row.name not in set(absent)
        ]
        loads = [
            EngineLoad(name, sum(s.instance == name for s in self.held.values()), 0, 50_000, 100_000)
            for name in names
        ]
        return EngineReport(
            node, self.tick if tick is None else tick, self.sequence, self.now, list(events), loads
        )

    def fold(self, *reports: EngineReport) -> None:
        self.core.fold(reports, self.now)

    @property
    def last_sent(self) -> list[Submission]:
        return [s for s in self.sent if s.submitted_seconds >= self.now - 1.0]


def codes(world: World) -> list[tuple[int, End, str]]:
    """Tag, kind of end and code of each request that ended, in order."""
    return [(ending.tag, ending.end, ending.code) for ending in world.endings]
