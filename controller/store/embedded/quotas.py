"""ResourceQuota, as the API server's admission holds pods to it: counts of pods and what they request.

Used is counted when it is asked; `status.used` is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from controller.observe.quantities import parse_quantity
from controller.store.interface import JsonObject

ENDED = ("Succeeded", "Failed")


def refusal(pod: JsonObject, quotas: Iterable[JsonObject], pods: Iterable[JsonObject]) -> str | None:
    """The server's sentence where a pod would exceed a quota of its namespace; else None. `pods` are those there."""
    there = [each for each in pods if each.get("status", {}).get("phase") not in ENDED]
    for quota in sorted(quotas, key=lambda q: str(q["metadata"]["name"])):
        hard = quota.get("spec", {}).get("hard", {})
        over = []
        for name in sorted(hard):
            asked = _usage(pod, name)
            used = sum((_usage(each, name) for each in there), Fraction(0))
            if asked > 0 and used + asked > parse_quantity(hard[name]):
                over.append((name, asked, used, hard[name]))
        if over:
            requested, used_text, limited = (
                ",".join(f"{row[0]}={_text(row[column])}" for row in over) for column in (1, 2, 3)
            )
            return (
                f'pods "{pod["metadata"]["name"]}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, '
                f"requested: {requested}, used: {used_text}, limited: {limited}"
            )
    return None


def _usage(pod: JsonObject, name: str) -> Fraction:
    """What a pod counts towards one resource of a quota."""
    if name in ("pods", "count/pods"):
        return Fraction(1)
    part, _, resource = name.partition(".")
    if part not in ("requests", "limits") or not resource:
        part, resource = "requests", name
    found = (c.get("resources", {}) for c in pod.get("spec", {}).get("containers", []))
    return sum(
        (parse_quantity(r.get(part, {}).get(resource, r.get("limits", {}).get(resource, 0))) for r in found),
        Fraction(0),
    )


def _text(value: object) -> str:
    return str(value)
