"""What a decision is: plan, evidence, context."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from cluster.actions import AnyAction
from cluster.reasons import Quantity, Reason
from cluster.seeds import stable_hash
from cluster.targets import AnyTarget


class Evidence(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How good a plan is and what was missing: objective, bound, work done, what was degraded."""

    objective: float | None = None
    bound: float | None = None
    optimal: bool = True
    units_used: int = 0
    degraded: tuple[str, ...] = ()
    facts: tuple[Quantity, ...] = ()


class Plan(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Actions that are legal now, standing targets, and the reasons that both index or stand alone."""

    actions: tuple[AnyAction, ...] = ()
    targets: tuple[AnyTarget, ...] = ()
    reasons: tuple[Reason, ...] = ()
    evidence: Evidence = Evidence()


StateT = TypeVar("StateT", bound=msgspec.Struct)
ViewT_contra = TypeVar("ViewT_contra", contravariant=True)


class Decision(msgspec.Struct, Generic[StateT], frozen=True, gc=False):
    """What `decide` returns: the plan, and the policy's next state."""

    plan: Plan
    state: StateT


class Context(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a decision may know besides its view.

    `now_seconds` UTC; `units` is the work budget; `scratch` a memo that may change time but never the
    result, and is neither stored nor captured.
    """

    now_seconds: float
    tick: int = 0
    epoch: int = 0
    seed: int = 0
    loop: str = ""
    scope: tuple[str, ...] = ()
    units: int = 1_000_000
    scratch: dict[str, Any] = {}

    def rng(self, *names: str) -> np.random.Generator:
        """A generator for this loop, scope, tick and the substream `names` (SEAMS §6.5)."""
        seed = stable_hash(self.seed, self.loop, "/".join(self.scope), self.tick, *names)
        return np.random.Generator(np.random.PCG64(seed))


class Policy(Protocol[ViewT_contra, StateT]):
    """The one seam of deciding. Built as `Policy(config)`; no attribute changes after construction."""

    def initial(self) -> StateT:
        """The state to start from when there is none: safe, if perhaps dear."""
        ...

    def decide(self, view: ViewT_contra, state: StateT, ctx: Context) -> Decision[StateT]:
        """Decide from the view and the state alone."""
        ...


SeenT_contra = TypeVar("SeenT_contra", contravariant=True)
BeliefT_co = TypeVar("BeliefT_co", covariant=True)


class Estimator(Protocol[SeenT_contra, StateT, BeliefT_co]):
    """The one seam of learning: folds observations into a state, and tells what it believes."""

    def initial(self) -> StateT:
        """The state before anything was seen."""
        ...

    def fold(self, seen: SeenT_contra, state: StateT) -> StateT:
        """Take one observation in."""
        ...

    def believe(self, state: StateT, now_seconds: float) -> BeliefT_co:
        """What follows from the state, with source and age."""
        ...
