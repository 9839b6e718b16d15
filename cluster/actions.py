"""Everything the operator can do. Each action says which intents it was computed from, and why.

`expects` pins *intents* by version (the service's spec, the job's spec); resources are checked by
meaning when the action is carried out (`cluster.checks`). `reason` indexes the plan's reasons.
"""

from __future__ import annotations

import msgspec

from cluster.base import Ref
from cluster.hardware import Slot
from cluster.serving import Role, Tier, Variant
from cluster.size_plan import SizePlan
from cluster.training import Layout


class Action(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="action",
):
    """Base of all actions."""

    expects: tuple[Ref, ...] = ()
    reason: int

    @property
    def kind(self) -> str:
        """The action's kind, as in SEAMS §4."""
        return type(self).__name__


class CreateLauncher(Action, frozen=True, tag=True, kw_only=True):
    """Create a pod that owns devices and may host engines of `variant` (None = any)."""

    name: str
    slots: tuple[Slot, ...]
    variant: Variant | None = None


class CreateReplica(Action, frozen=True, tag=True, kw_only=True):
    """Create a replica in an existing `launcher`, or with its own launcher on `slots`."""

    service: str
    name: str
    variant: Variant
    pool: str = ""
    ordinal: int = 0
    launcher: str = ""
    slots: tuple[Slot, ...] = ()
    tier: Tier = Tier.AWAKE


class Drain(Action, frozen=True, tag=True, kw_only=True):
    """Stop sending new work to a replica (or node) and let it empty until the deadline (UTC seconds).

    `voluntary`: nothing but our own choice ends it, so it is charged as a move (`cluster.restraint`).
    """

    subject: Ref
    deadline_seconds: float
    voluntary: bool = False


class Resume(Action, frozen=True, tag=True, kw_only=True):
    """Undo a drain or an isolation of the same loop, before stopping began."""

    subject: Ref


class DeleteReplica(Action, frozen=True, tag=True, kw_only=True):
    """Delete a replica that is empty, past its deadline, or never became ready.

    `evict`: by the Eviction API, which asks the PodDisruptionBudgets over it and may say "not now".
    """

    replica: Ref
    grace_seconds: float
    evict: bool = False


class SetTier(Action, frozen=True, tag=True, kw_only=True):
    """Put a replica to sleep or wake it."""

    replica: Ref
    tier: Tier


class SetRole(Action, frozen=True, tag=True, kw_only=True):
    """Change which part of requests a replica computes."""

    replica: Ref
    role: Role


class SetRoutes(Action, frozen=True, tag=True, kw_only=True):
    """Weights over a service's ready replicas, keyed by replica; they sum to 1, or the map is empty.

    `plan` is the service's plan by size for gateways that dispatch so, None where they go by the weights alone.
    """

    service: str
    weights: dict[str, float]
    plan: SizePlan | None = None


class SettleRevision(Action, frozen=True, tag=True, kw_only=True):
    """Keep what became of a service's revision: `complete` (all that is wanted of it was ready), or given up.

    Written down before anything follows from it: a successor neither tries again what was given up nor goes back
    from what was complete. `code` is that of the reason, kept beside it. `number`, `summary` (model and image) and
    `began_seconds` (UTC) are for the ledger, whose rows of this kind are the history of a service's rollouts.
    """

    service: str
    revision: str
    complete: bool
    code: str = ""
    number: int = 0
    summary: str = ""
    began_seconds: float = 0.0


class Scale(Action, frozen=True, tag=True, kw_only=True):
    """Write the `scale` subresource of something owned elsewhere."""

    subject: Ref
    replicas: int


class StageWeights(Action, frozen=True, tag=True, kw_only=True):
    """Copy a model's weights to a node's tier from a source, chunk by chunk along `chain`."""

    model: str
    node: str
    tier: str
    source: str
    bytes: int
    chain: tuple[str, ...] = ()


class DropWeights(Action, frozen=True, tag=True, kw_only=True):
    """Delete a weight copy."""

    model: str
    node: str
    tier: str


class Reserve(Action, frozen=True, tag=True, kw_only=True):
    """Keep slots for a waiting owner."""

    key: str
    owner: Ref
    slots: tuple[Slot, ...]
    priority: int
    starts_seconds: float
    expires_seconds: float


class Release(Action, frozen=True, tag=True, kw_only=True):
    """Give a reservation up."""

    key: str


class StartGang(Action, frozen=True, tag=True, kw_only=True):
    """Create every pod of an attempt, or none."""

    job: Ref
    attempt: int
    layout: Layout


class RestartGang(Action, frozen=True, tag=True, kw_only=True):
    """Replace an attempt by the next one, from a restore point; members stay where healthy.

    `failed`: the old one counts as one of the failures that the job's restart limit allows.
    """

    gang: Ref
    job: Ref
    attempt: int
    layout: Layout
    restore_step: int
    failed: bool = True


class StopGang(Action, frozen=True, tag=True, kw_only=True):
    """Stop an attempt, checkpointing first where asked. `reservation` is what a preemption serves.

    `failed`: it counts as one of the failures that the job's restart limit allows.
    """

    gang: Ref
    attempt: int
    grace_seconds: float
    checkpoint_first: bool = False
    reservation: str = ""
    failed: bool = False


class Checkpoint(Action, frozen=True, tag=True, kw_only=True):
    """Set how often a job saves, and to which tier."""

    job: Ref
    interval_seconds: float
    tier: str = "zone"


class PaceGang(Action, frozen=True, tag=True, kw_only=True):
    """Lock a gang's iterations to a period and an offset, so that power dips do not align."""

    gang: Ref
    period_seconds: float
    offset_seconds: float


class Isolate(Action, frozen=True, tag=True, kw_only=True):
    """Take a node or device out of use until a time (UTC seconds)."""

    subject: Ref
    level: str
    until_seconds: float


class GrantPower(Action, frozen=True, tag=True, kw_only=True):
    """Lease watts to a node for `ttl_seconds`; `clock_mhz` 0 leaves the clock free."""

    node: str
    watts: int
    clock_mhz: int = 0
    ttl_seconds: float = 5.0


class ShapePrefill(Action, frozen=True, tag=True, kw_only=True):
    """Bound the prefill tokens a class may start per second in a power domain."""

    domain: str
    request_class: str
    tokens_per_second: float
    burst_tokens: float


class Migrate(Action, frozen=True, tag=True, kw_only=True):
    """Move a running request; `mode` is `kv`, `replay` or `replicate`."""

    sequence: str
    epoch: int
    source: str
    target: str
    mode: str
    reserve_tokens: int
    deadline_seconds: float


class Dispatch(Action, frozen=True, tag=True, kw_only=True):
    """First assignment of a request. Its reason is its five scalars, rendered only when asked."""

    request: str
    instance: str
    prefill: str = ""
    code: str
    score: float
    runner_up: str = ""
    runner_up_score: float = 0.0


class Hold(Action, frozen=True, tag=True, kw_only=True):
    """Keep a request until an instance is ready or its deadline passes."""

    request: str
    code: str = "HoldNoInstance"


class Reject(Action, frozen=True, tag=True, kw_only=True):
    """Refuse a request; the client may come back after `retry_after_seconds`."""

    request: str
    retry_after_seconds: float
    code: str = "RejectCap"


class Provision(Action, frozen=True, tag=True, kw_only=True):
    """Buy nodes of a pool."""

    pool: str
    count: int


class ReleaseNode(Action, frozen=True, tag=True, kw_only=True):
    """Give an empty node back."""

    node: str


class Probe(Action, frozen=True, tag=True, kw_only=True):
    """Measure a link while it is idle."""

    source: str
    target: str
    seconds: float


AnyAction = (
    CreateLauncher
    | CreateReplica
    | Drain
    | Resume
    | DeleteReplica
    | SetTier
    | SetRole
    | SetRoutes
    | SettleRevision
    | Scale
    | StageWeights
    | DropWeights
    | Reserve
    | Release
    | StartGang
    | RestartGang
    | StopGang
    | Checkpoint
    | PaceGang
    | Isolate
    | GrantPower
    | ShapePrefill
    | Migrate
    | Dispatch
    | Hold
    | Reject
    | Provision
    | ReleaseNode
    | Probe
)

KINDS: tuple[type[Action], ...] = AnyAction.__args__
"""Every kind of action, in the order of SEAMS §4."""


class Stamped(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An action as the world issues it: id = epoch/loop/tick/index, deadline, leader epoch."""

    id: str
    action: AnyAction
    loop: str
    epoch: int
    issued_seconds: float
    deadline_seconds: float
