"""Power domains as a forest: members by name and label, faults that one object cannot show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from controller.observe.ruled import broken_rules
from controller.resources.powerdomain import LabelRequirement, LabelSelector
from controller.resources.powerdomain import PowerDomain as PowerDomainObject


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses a node; an empty selector chooses none (it would choose all)."""
    if not selector.match_labels and not selector.match_expressions:
        return False
    exact = all(labels.get(k) == v for k, v in selector.match_labels.items())
    return exact and all(_holds(requirement, labels) for requirement in selector.match_expressions)


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


class DomainBook:
    """Members of each sound domain, the domain of each node, and what is wrong with the others."""

    def __init__(self) -> None:
        """Start without domains."""
        self.members: dict[str, tuple[str, ...]] = {}
        self.faults: dict[str, tuple[str, ...]] = {}
        self._domain_of: dict[str, str] = {}
        self._ruled: dict[str, tuple[PowerDomainObject, tuple[str, ...]]] = {}

    def domain_of(self, node: str) -> str:
        """The domain a node draws through directly, or empty."""
        return self._domain_of.get(node, "")

    def resolve(
        self, objects: Mapping[str, PowerDomainObject], labels: Mapping[str, Mapping[str, str]]
    ) -> set[str]:
        """Work out members and faults anew; the nodes whose domain changed.

        A domain that breaks a rule by itself, in a cycle, under an unknown parent, or claiming a node another one claims too is
        faulty, and so is every domain below one: it is left out, and the safe state stays in force for its members.
        """
        claims: dict[str, set[str]] = defaultdict(set)
        members: dict[str, tuple[str, ...]] = {}
        for name in sorted(objects):
            spec = objects[name].spec.members
            chosen = set(spec.nodes)
            if spec.selector is not None:
                chosen |= {node for node, marks in labels.items() if selects(spec.selector, marks)}
            members[name] = tuple(sorted(chosen))
            for node in chosen:
                claims[node].add(name)
        self.faults = {}
        for name in sorted(objects):
            found = self._broken(name, objects[name]) or _faults(name, objects, members[name], claims)
            if found:
                self.faults[name] = found
        self.faults |= _orphaned(objects, self.faults)
        self._ruled = {name: self._ruled[name] for name in objects}
        self.members = {name: m for name, m in members.items() if name not in self.faults}
        before, self._domain_of = (
            self._domain_of,
            {n: d for d in sorted(self.members) for n in self.members[d]},
        )
        return {n for n in before.keys() | self._domain_of.keys() if before.get(n) != self._domain_of.get(n)}

    def _broken(self, name: str, obj: PowerDomainObject) -> tuple[str, ...]:
        """Rules that the object breaks by itself; looked at again only when it changed."""
        known, faults = self._ruled.get(name, (None, ()))
        if known is not obj:
            faults = tuple(broken_rules("PowerDomain", obj))
            self._ruled[name] = (obj, faults)
        return faults


def _faults(
    name: str,
    objects: Mapping[str, PowerDomainObject],
    members: tuple[str, ...],
    claims: Mapping[str, set[str]],
) -> tuple[str, ...]:
    found = []
    shared = next((node for node in members if len(claims[node]) > 1), None)
    if shared is not None:
        others = ", ".join(sorted(claims[shared] - {name}))
        found.append(
            f"PowerDomain {name}: node {shared} is a member of {others} too; a node draws through one domain. Remove it from one of them."
        )
    chain, at = [name], objects[name].spec.parent
    while at:
        if at in chain:
            found.append(
                f"PowerDomain {name}: its parents form a cycle ({' > '.join([*chain, at])}). Give one of them no parent."
            )
            break
        if at not in objects:
            found.append(
                f"PowerDomain {name}: its parent {at} does not exist. Apply it, or remove spec.parent."
            )
            break
        chain.append(at)
        at = objects[at].spec.parent
    return tuple(found)


def _orphaned(
    objects: Mapping[str, PowerDomainObject], faults: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Sound domains that draw through a faulty one: on their own they would be planned without its limit."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(objects.keys() - faults.keys()):
        at = objects[name].spec.parent
        while at and at not in faults:
            at = objects[at].spec.parent
        if at:
            found[name] = (
                f"PowerDomain {name}: it draws through {at}, which is refused; nothing says what it may carry. Mend {at} first.",
            )
    return found
