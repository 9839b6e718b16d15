"""What the ledger stores, as plain frozen structs.

The ledger takes these and nothing else, so that it depends on no detail of plans, reasons or actions: whoever
owns those turns them into rows (`plan_row`, `reason_row`, `actuation_row` do it for anything msgspec can lower to
builtins). Times are UTC seconds as floats, virtual or real alike; money is dollars; everything else carries its
unit in its name.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


class PlanId(msgspec.Struct, frozen=True, gc=False, order=True):
    """Names one decision: the leader's epoch, the loop that decided and the loop's tick."""

    epoch: int
    loop: str
    tick: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.loop}/{self.tick}"

    @classmethod
    def parse(cls, text: str) -> PlanId:
        """Read `epoch/loop/tick` back. Raises ValueError with a sentence when `text` is no such name."""
        epoch, _, rest = text.partition("/")
        loop, _, tick = rest.rpartition("/")
        if not (epoch.isdecimal() and tick.isdecimal() and loop):
            raise ValueError(
                f"{text!r} names no plan: write it as EPOCH/LOOP/TICK, for example 3/planner/41."
            )
        return cls(epoch=int(epoch), loop=loop, tick=int(tick))


class ActionId(msgspec.Struct, frozen=True, gc=False, order=True):
    """Names one action: its plan and its index within it."""

    epoch: int
    loop: str
    tick: int
    index: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.loop}/{self.tick}/{self.index}"

    @property
    def plan(self) -> PlanId:
        """The plan this action belongs to."""
        return PlanId(epoch=self.epoch, loop=self.loop, tick=self.tick)

    @classmethod
    def parse(cls, text: str) -> ActionId:
        """Read `epoch/loop/tick/index` back. Raises ValueError with a sentence when `text` is no such name."""
        head, _, index = text.rpartition("/")
        if not index.isdecimal():
            raise ValueError(f"{text!r} names no action: write it as EPOCH/LOOP/TICK/INDEX.")
        plan = PlanId.parse(head)
        return cls(epoch=plan.epoch, loop=plan.loop, tick=plan.tick, index=int(index))


class PlanRow(msgspec.Struct, frozen=True):
    """One decision: when, how good (`objective`, `bound`, `degraded`), and where its replay record lies.

    `evidence` is JSON text of the whole evidence. `record` is the plan's own name when a replay record was kept,
    else empty. `actions` and `reasons` are counts.
    """

    id: PlanId
    decided_seconds: float
    scope: str = ""
    policy: str = ""
    objective: float | None = None
    bound: float | None = None
    degraded: bool = False
    units_used: int = 0
    took_seconds: float | None = None
    evidence: str = "{}"
    record: str = ""
    actions: int = 0
    reasons: int = 0


class ReasonRow(msgspec.Struct, frozen=True):
    """One reason of a plan, with its numbers beside the JSON text of the whole (`detail`) and its sentence.

    `refs` are (kind, name) of other objects the reason speaks of; `count` says how many equal ones were merged.
    """

    code: str
    verdict: str
    subject_kind: str
    subject_name: str
    choice: str = ""
    need: float | None = None
    have: float | None = None
    limit: float | None = None
    count: int = 1
    sentence: str = ""
    detail: str = "{}"
    refs: tuple[tuple[str, str], ...] = ()


class StoredReason(msgspec.Struct, frozen=True):
    """A reason as read back: the row, the plan it stands in, its index there, and when it was decided."""

    plan: PlanId
    index: int
    decided_seconds: float
    row: ReasonRow


class ActuationRow(msgspec.Struct, frozen=True):
    """One action as it was issued or dropped.

    `outcome` is `issued` until it finishes, then `done`, `failed`, `expired` or `dropped`; `code` says why it was
    dropped or failed (`Stale`, `Taken`, `NotOwner`, `Unsafe`, `Expired`, `Unsupported`). `reason` is the index
    into the plan's reasons. `count` merges equal actions of one tick, such as the renewal of every node's lease.
    """

    id: ActionId
    kind: str
    subject_kind: str
    subject_name: str
    issued_seconds: float
    deadline_seconds: float | None = None
    reason: int | None = None
    payload: str = "{}"
    outcome: str = "issued"
    code: str = ""
    message: str = ""
    finished_seconds: float | None = None
    count: int = 1


class ActuationEnd(msgspec.Struct, frozen=True):
    """How an issued action ended. A later end of the same action replaces an earlier one."""

    id: ActionId
    outcome: str
    finished_seconds: float
    code: str = ""
    message: str = ""


class LoadRow(msgspec.Struct, frozen=True):
    """Arrivals of one class of a service over the window that ends at `at_seconds`.

    `histogram` is JSON text of the token histogram, as the gateway reported it (edges and req/s per cell).
    """

    service: str
    request_class: str
    at_seconds: float
    window_seconds: float
    requests_per_second: float
    input_tokens_mean: float | None = None
    output_tokens_mean: float | None = None
    held_requests: int = 0
    rejected_per_second: float = 0.0
    histogram: str = "{}"


class OutcomeRow(msgspec.Struct, frozen=True):
    """What one class of a service really got over the window that ends at `at_seconds`.

    `attainment` is the share of requests within the objective, 0 to 1; `detail` is JSON text of anything more.
    """

    service: str
    request_class: str
    at_seconds: float
    window_seconds: float
    served: int
    rejected: int = 0
    lost: int = 0
    attainment: float | None = None
    ttft_p50_seconds: float | None = None
    ttft_p99_seconds: float | None = None
    tpot_p99_seconds: float | None = None
    ready_replicas: int = 0
    dollars_per_hour: float | None = None
    detail: str = "{}"


class PolicyStateRow(msgspec.Struct, frozen=True):
    """The last state of a policy for one scope, JSON text, with the schema number its reader must know."""

    loop: str
    scope: str
    policy: str
    schema: int
    epoch: int
    stored_seconds: float
    state: str


class EpochRow(msgspec.Struct, frozen=True):
    """One leadership: who led, with which version of the code, from when until when."""

    epoch: int
    identity: str
    version: str
    started_seconds: float
    ended_seconds: float | None = None


class GapRow(msgspec.Struct, frozen=True):
    """A hole in the history: rows that had to be given up between two times, and why."""

    from_seconds: float
    until_seconds: float
    rows: int
    cause: str


class HistoryEntry(msgspec.Struct, frozen=True):
    """A stretch of equal reasons of one subject: `times` plans in a row said the same, the last one as given."""

    first_seconds: float
    last_seconds: float
    times: int
    latest: StoredReason


class Explanation(msgspec.Struct, frozen=True):
    """Everything the ledger knows about one object's latest decision.

    `plan` is the newest plan with a reason about the object; `reasons` holds, for every loop that ever spoke of
    it, the object's reasons in that loop's newest such plan (newest plan first); `mentions` are recent reasons of
    *other* subjects whose refs name it; `actuations` are its recent actions; `history` the stretches before.
    """

    kind: str
    name: str
    plan: PlanRow
    reasons: tuple[StoredReason, ...]
    mentions: tuple[StoredReason, ...]
    actuations: tuple[ActuationRow, ...]
    history: tuple[HistoryEntry, ...]


def json_text(value: object) -> str:
    """`value` as JSON text; numpy scalars and arrays become numbers and lists, anything unknown its `str`."""
    return msgspec.json.encode(value, enc_hook=_plain, order="deterministic").decode("utf-8", "replace")


def plan_row(plan_id: PlanId, decided_seconds: float, evidence: object, **more: Any) -> PlanRow:
    """A `PlanRow` from any evidence that lowers to a mapping.

    Reads `objective`, `bound`, `degraded` and `units_used` where they exist; `more` sets the row's other fields.
    """
    facts = _mapping(evidence)
    return PlanRow(
        id=plan_id,
        decided_seconds=decided_seconds,
        objective=_number(facts.get("objective")),
        bound=_number(facts.get("bound")),
        degraded=bool(facts.get("degraded")),
        units_used=int(_number(facts.get("units_used")) or 0),
        evidence=json_text(facts),
        **more,
    )


def reason_row(reason: object, sentence: str) -> ReasonRow:
    """A `ReasonRow` from any reason that lowers to a mapping with the fields of SEAMS §7."""
    facts = _mapping(reason)
    subject = _mapping(facts.get("subject"))
    return ReasonRow(
        code=_word(facts.get("code")),
        verdict=_word(facts.get("verdict")),
        subject_kind=_word(subject.get("kind")),
        subject_name=_word(subject.get("name")),
        choice=_word(facts.get("choice")),
        need=_quantity(facts.get("need")),
        have=_quantity(facts.get("have")),
        limit=_quantity(facts.get("limit")),
        count=int(_number(facts.get("count")) or 1),
        sentence=sentence,
        detail=json_text(facts),
        refs=tuple(
            (_word(ref.get("kind")), _word(ref.get("name"))) for ref in map(_mapping, facts.get("refs") or ())
        ),
    )


def _plain(value: object) -> object:
    lower = getattr(value, "tolist", None)
    return lower() if callable(lower) else str(value)


def _mapping(value: object) -> dict[str, Any]:
    lowered = msgspec.to_builtins(value, enc_hook=_plain, str_keys=True) if value is not None else {}
    return lowered if isinstance(lowered, dict) else {}


def _word(value: object) -> str:
    return "" if value is None else str(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _quantity(value: object) -> float | None:
    return _number(value.get("value")) if isinstance(value, dict) else _number(value)
