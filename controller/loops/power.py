"""The power loop: every second, one decision a root domain."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from cluster.observer import Observer
from cluster.plan import Context, Decision, Plan
from cluster.views import PowerView
from policies.registry import PolicyConfigError, build


class PowerDecision(NamedTuple):
    """What one root domain's policy decided, on which view."""

    root: str
    policy: str
    plan: Plan
    view: PowerView


class PowerLoop:
    """Keeps one policy and its state per root domain; a new name or configuration starts from `initial()`."""

    def __init__(self, seed: int) -> None:
        """Start without states."""
        self._seed = seed
        self._built: dict[str, tuple[tuple[str, bytes], Any]] = {}
        self._scratch: dict[str, dict[str, Any]] = {}
        self.states: dict[str, Any] = {}
        self.config_faults: dict[str, str] = {}

    def decide(self, observer: Observer, now_seconds: float, tick: int, epoch: int) -> list[PowerDecision]:
        """Decide for every root domain, in order of name."""
        domains = observer.live("domains")
        roots = sorted(name for name, d in domains.items() if d.parent not in domains)
        decided = []
        for root in roots:
            policy = self._policy(root, domains[root].policy, domains[root].config)
            view = observer.power_view(root, now_seconds, epoch)
            context = Context(
                now_seconds=now_seconds,
                tick=tick,
                epoch=epoch,
                seed=self._seed,
                loop="power",
                scope=(root,),
                scratch=self._scratch.setdefault(root, {}),
            )
            decision: Decision[Any] = policy.decide(view, self.states[root], context)
            self.states[root] = decision.state
            decided.append(PowerDecision(root, domains[root].policy, decision.plan, view))
        for gone in set(self.states) - set(roots):
            self._forget(gone)
        return decided

    def _policy(self, root: str, name: str, config: dict[str, Any]) -> Any:
        key = (name, msgspec.json.encode(config, order="deterministic"))
        held = self._built.get(root)
        if held is not None and held[0] == key:
            return held[1]
        try:
            policy = build("power", name, config)
            self.config_faults.pop(root, None)
        except PolicyConfigError as error:
            self.config_faults[root] = str(error)
            policy = held[1] if held is not None else build("power", "static_clamp", {})
        self._built[root] = (key, policy)
        self.states[root] = policy.initial()
        return policy

    def _forget(self, root: str) -> None:
        for book in (self._built, self._scratch, self.states, self.config_faults):
            book.pop(root, None)
