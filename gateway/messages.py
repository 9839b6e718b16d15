"""What goes into the gateway's core and what comes out: plain values, no transport.

Points in time are UTC seconds, as everywhere. Lists that a frame carries are in the order in which the core
decided, so that two runs on the same input give byte-identical frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from cluster.size_plan import SizePlan


class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of the values below: slotted, cheap to make, never walked by the garbage collector."""


class Arrival(Message, frozen=True):
    """A client's request. `tag` is unique within its `client` stream; `body_bytes` 0 means not known.

    `deadline_seconds` 0 leaves only the service's own limits in force.
    """

    tag: int
    service: str
    prompt_tokens: int
    output_tokens: int
    arrived_seconds: float
    request_class: str = ""
    deadline_seconds: float = 0.0
    priority: int = 0
    client: int = 0
    body_bytes: int = 0


class Submission(Message, frozen=True):
    """One request handed to one instance; `epoch` counts the owners the request has had, from 1."""

    request_id: int
    epoch: int
    instance: str
    request_class: str
    prompt_tokens: int
    output_tokens: int
    arrived_seconds: float
    submitted_seconds: float
    priority: int = 0


class Cancellation(Message, frozen=True):
    """Tells an engine to stop working on a request that it no longer owns."""

    request_id: int
    epoch: int
    instance: str


@dataclass(slots=True)
class NodeFrame:
    """Everything that goes to one node in one window, in order of decision."""

    node: str
    tick: int
    submissions: list[Submission] = field(default_factory=list)
    cancels: list[Cancellation] = field(default_factory=list)


class EventKind(IntEnum):
    """What an engine says about one request."""

    FIRST_TOKEN = 1
    FINISHED = 2
    REFUSED = 3
    FAILED = 4


class EngineEvent(Message, frozen=True):
    """One event of one request; `tokens` generated so far."""

    request_id: int
    epoch: int
    instance: str
    kind: EventKind
    at_seconds: float
    tokens: int = 0
    message: str = ""


class EngineLoad(Message, frozen=True):
    """The load an engine reports of itself at the end of a window."""

    name: str
    running: int
    waiting: int
    kv_free_tokens: int
    kv_capacity_tokens: int
    ready: bool = True


class EngineReport(Message, frozen=True):
    """One frame of a node: `tick` is the newest gateway frame that it accounts for.

    `instances` are all engines of the node; a routed instance that is not among them is gone.
    """

    node: str
    tick: int
    sequence: int
    observed_seconds: float
    events: list[EngineEvent]
    instances: list[EngineLoad]


class RouteState(IntEnum):
    """What the operator says about a row. Only `READY` rows get new requests."""

    READY = 1
    DRAINING = 2
    MASKED = 3
    ASLEEP = 4


class ClassRoute(Message, frozen=True):
    """A traffic class of a service with its objective."""

    name: str
    ttft_seconds: float
    tpot_seconds: float
    percentile: float = 0.95
    priority: int = 0


class InstanceRoute(Message, frozen=True):
    """A row of a service's route: where the instance is and what share of new requests it should get.

    Another `uid` under the same `name` is another instance.
    """

    name: str
    node: str
    endpoint: str
    weight: float
    state: RouteState = RouteState.READY
    variant: str = ""
    uid: str = ""
    kv_capacity_tokens: int = 0
    pool: str = ""

    @property
    def column(self) -> str:
        """`variant|pool`, as plans by size name it."""
        return f"{self.variant}|{self.pool}"


class ServiceRoute(Message, frozen=True):
    """The route of one service. Empty edges mean the gateway's own; without a `size_plan` weights are all there is."""

    service: str
    uid: str = ""
    classes: tuple[ClassRoute, ...] = ()
    hold_limit: int = 1_000
    hold_deadline_seconds: float = 300.0
    instances: tuple[InstanceRoute, ...] = ()
    input_edges: tuple[float, ...] = ()
    output_edges: tuple[float, ...] = ()
    dispatch_policy: str = ""
    size_plan: SizePlan | None = None


class RouteTable(Message, frozen=True):
    """All routes, as one leader (`epoch`) decided them; `version` grows with each change within it."""

    epoch: int
    version: int
    services: tuple[ServiceRoute, ...] = ()
    decided_seconds: float = 0.0


class Window(Message, frozen=True):
    """[from_seconds, until_seconds) of decisions. `tick` numbers windows and grows strictly."""

    tick: int
    from_seconds: float
    until_seconds: float


class End(IntEnum):
    """The four ways a request ends, each request in exactly one."""

    FINISHED = 1
    REJECTED = 2
    FAILED = 3
    CANCELLED = 4


class Ending(Message, frozen=True):
    """How a request ended, with what accounting needs. Latencies start at `arrived_seconds`.

    `first_token_seconds` and `finished_seconds` are None unless an engine said so; the first token is that of
    the owner that finished the request, so a retry makes the time to first token longer, never shorter.
    `code` is a reason code for anything but FINISHED.
    """

    tag: int
    client: int
    service: str
    request_class: str
    end: End
    arrived_seconds: float
    ended_seconds: float
    first_token_seconds: float | None = None
    finished_seconds: float | None = None
    output_tokens: int = 0
    instance: str = ""
    retries: int = 0
    held_seconds: float = 0.0
    code: str = ""
    message: str = ""
    retry_after_seconds: float = 0.0


@dataclass(slots=True)
class Outbox:
    """What a step wants done: frames by node in order of first use, endings in order, `urgent` report.

    `urgent` is set when a service without ready instances got its first held request: that is demand at once,
    not at the next report.
    """

    frames: dict[str, NodeFrame] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    urgent: bool = False
