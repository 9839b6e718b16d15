"""Legal transitions (SEAMS §9), as data. Any other transition is refused and counted.

An observer may miss intermediate states (watches coalesce), so it accepts every state that legal
arrows lead to; a policy or actor must use a direct arrow.
"""

from __future__ import annotations

from collections.abc import Mapping

Arrows = Mapping[str, frozenset[str]]


def _arrows(**targets: str) -> Arrows:
    return {source: frozenset(names.split()) for source, names in targets.items()}


REPLICA: Arrows = _arrows(
    pending="starting gone lost",
    starting="ready failed lost",
    ready="sleeping draining failed lost",
    sleeping="asleep lost",
    asleep="waking draining lost",
    waking="ready lost",
    draining="ready stopping lost",
    stopping="gone lost",
    failed="gone lost",
    lost="gone",
    gone="",
)
"""Replica phases. `lost` is reachable from everything but `gone` and left only to `gone`. A ready engine
may crash (`failed`) as a starting one may: refusing to see it would leave a dead replica in the routes.
"""

GANG: Arrows = _arrows(
    forming="verifying failed",
    verifying="running failed",
    running="restarting stopping done",
    restarting="verifying failed",
    stopping="stopped",
    stopped="",
    failed="",
    done="",
)
"""One attempt of a gang."""

JOB: Arrows = _arrows(
    waiting="reserved active suspended failed",
    reserved="active waiting suspended",
    active="waiting suspended done failed",
    suspended="waiting",
    done="",
    failed="",
)
"""A job: waiting -> reserved -> active (an attempt runs) -> done | failed, or back to waiting."""

REQUEST: Arrows = _arrows(
    arrived="held dispatched rejected cancelled",
    held="dispatched rejected cancelled",
    dispatched="prefill dispatched held finished cancelled failed",
    prefill="decoding dispatched held finished cancelled failed",
    decoding="decoding dispatched held finished cancelled failed",
    finished="",
    rejected="",
    cancelled="",
    failed="",
)
"""A request; going back to `dispatched` or `held` raises its ownership epoch (owner lost, replay)."""

LEASE: Arrows = _arrows(none="sent", sent="active expired sent", active="sent expired", expired="none sent")
"""A power lease; `none` is the safe state."""

IN_FLIGHT: Arrows = _arrows(
    issued="acked done failed expired", acked="done failed expired", done="", failed="", expired=""
)
"""An accepted action."""

RESERVATION: Arrows = _arrows(
    future="held released expired", held="consumed released expired", consumed="", released="", expired=""
)
"""A reservation."""


def legal(arrows: Arrows, source: str, target: str) -> bool:
    """Whether one arrow leads from source to target (staying is always legal)."""
    return source == target or target in arrows.get(source, frozenset())


def reachable(arrows: Arrows, source: str, target: str) -> bool:
    """Whether some path of arrows leads from source to target."""
    seen: set[str] = set()
    frontier = [source]
    while frontier:
        state = frontier.pop()
        if state == target:
            return True
        if state not in seen:
            seen.add(state)
            frontier.extend(sorted(arrows.get(state, frozenset())))
    return False
