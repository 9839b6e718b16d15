"""Rules across the fields of one object: the CEL that the API server runs, and its twin in Python.

The embedded store runs no CEL (it says so); the manifest loader and the operator check the twins, so that
an object with such a fault is refused, or gets `Accepted=False`, with the same sentence everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.resources.base import PRECISIONS
from controller.resources.podrules import POD_RULES, RANK_RULES
from controller.resources.rule import EACH, Holds, JsonObject, Rule

ENDED = ("Succeeded", "Failed")
"""Last phases of a TrainingJob."""


def _ordered(low: str, high: str) -> Holds:
    return lambda value, _: low not in value or high not in value or bool(value[low] <= value[high])


def _at_most(path: tuple[str, ...], low: str, high: str) -> Rule:
    return Rule(
        path=path,
        cel=f"!has(self.{low}) || !has(self.{high}) || self.{low} <= self.{high}",
        message=f"{low} must not be greater than {high}; lower the one or raise the other",
        field=f".{low}",
        holds=_ordered(low, high),
    )


# ----------------------------------------------------------------------------------------------- ModelService


def _listed_variants(spec: JsonObject, _: Any) -> bool:
    allowed = spec.get("accelerators", [])
    return not allowed or all(variant["accelerator"] in allowed for variant in spec.get("variants", []))


def _load_has_tokens(load: JsonObject, _: Any) -> bool:
    tokens = load.get("inputTokens", 0.0) + load.get("outputTokens", 0.0)
    return not load.get("requestsPerSecond", 0.0) or bool(tokens > 0.0)


def _room_holds(hold: JsonObject, _: Any) -> bool:
    return not hold.get("maxRequests") or bool(hold.get("maxBytes", 1) and hold.get("deadlineSeconds", 1.0))


_MODEL_SERVICE = (
    _at_most(("spec",), "minReplicas", "maxReplicas"),
    Rule(
        path=("spec",),
        cel="!has(self.accelerators) || !has(self.variants) || self.accelerators.size() == 0"
        " || self.variants.all(v, v.accelerator in self.accelerators)",
        message="a variant must run on one of spec.accelerators; list its accelerator there, or leave the list out",
        field=".variants",
        holds=_listed_variants,
    ),
    Rule(
        path=("spec", "variants", EACH),
        cel="!has(self.gpuMilli) || self.gpuMilli == 1000 || !has(self.gpus) || self.gpus == 1",
        message="gpuMilli is a part of one GPU; give gpus: 1, or leave gpuMilli out",
        field=".gpuMilli",
        holds=lambda each, _: each.get("gpuMilli", 1_000) == 1_000 or each.get("gpus", 1) == 1,
    ),
    Rule(
        path=("spec", "model"),
        cel="has(self.kvHeads) == has(self.headDim)",
        message="kvHeads and headDim say together what a token takes; give both or neither",
        field=".kvHeads",
        holds=lambda model, _: ("kvHeads" in model) == ("headDim" in model),
    ),
    Rule(
        path=("spec", "expectedLoad"),
        cel="self.requestsPerSecond == 0.0 || self.inputTokens + self.outputTokens > 0.0",
        message="requests without tokens are no load; give inputTokens or outputTokens",
        field=".requestsPerSecond",
        holds=_load_has_tokens,
    ),
    Rule(
        path=("spec", "hold"),
        cel="!has(self.maxRequests) || self.maxRequests == 0"
        " || ((!has(self.maxBytes) || self.maxBytes > 0) && (!has(self.deadlineSeconds) || self.deadlineSeconds > 0.0))",
        message="a waiting room without bytes or without time holds nothing; set maxRequests to 0 to refuse at once",
        field=".maxRequests",
        holds=_room_holds,
    ),
)

# ------------------------------------------------------------------------------------------------ TrainingJob


def _whole_batches(spec: JsonObject, _: Any) -> bool:
    return "globalBatch" not in spec or not spec["globalBatch"] % spec.get("microBatch", 1)


def _below_interval(saves: JsonObject, _: Any) -> bool:
    wanted = "secondsToWrite" not in saves or "intervalSeconds" not in saves
    return wanted or bool(saves["secondsToWrite"] < saves["intervalSeconds"])


def _spec_of_an_ended_job(job: JsonObject, old: JsonObject) -> bool:
    return old.get("status", {}).get("phase") not in ENDED or job["spec"] == old["spec"]


def _attempt_rises(job: JsonObject, old: JsonObject) -> bool:
    return bool(job.get("status", {}).get("attempt", 0) >= old.get("status", {}).get("attempt", 0))


_ENDED_IN_CEL = ", ".join(f"'{phase}'" for phase in ENDED)

_TRAINING_JOB = (
    _at_most(("spec", "nodes"), "min", "max"),
    Rule(
        path=("spec",),
        cel="self.globalBatch % self.microBatch == 0",
        message="globalBatch must be a multiple of microBatch; a step is made of whole micro-batches",
        field=".globalBatch",
        holds=_whole_batches,
    ),
    Rule(
        path=("spec", "checkpoint"),
        cel="!has(self.secondsToWrite) || !has(self.intervalSeconds) || self.secondsToWrite < self.intervalSeconds",
        message="secondsToWrite must be less than intervalSeconds; the job would do nothing but save",
        field=".secondsToWrite",
        holds=_below_interval,
    ),
    Rule(
        path=("spec", "model"),
        cel="self == oldSelf",
        message="the model of a job cannot change, since its checkpoints are of the old one; make a new TrainingJob",
        reason="FieldValueForbidden",
        transition=True,
        holds=lambda model, old: bool(model == old),
    ),
    Rule(
        path=(),
        cel=f"!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in [{_ENDED_IN_CEL}])"
        " || self.spec == oldSelf.spec",
        message="a job that has ended cannot be changed; make a new TrainingJob",
        field=".spec",
        reason="FieldValueForbidden",
        transition=True,
        holds=_spec_of_an_ended_job,
    ),
    Rule(
        path=(),
        cel="!has(oldSelf.status) || !has(oldSelf.status.attempt)"
        " || (has(self.status) && has(self.status.attempt) && self.status.attempt >= oldSelf.status.attempt)",
        message="attempt never goes back; ranks of an older gang would be let in again",
        field=".status.attempt",
        reason="FieldValueForbidden",
        transition=True,
        holds=_attempt_rises,
    ),
)

# ------------------------------------------------------------------------------------------- AcceleratorClass

_ACCELERATOR_CLASS = (
    _at_most(("spec",), "minWatts", "safeWatts"),
    _at_most(("spec",), "safeWatts", "maxWatts"),
    _at_most(("spec",), "minWatts", "tdpWatts"),
    _at_most(("spec",), "tdpWatts", "maxWatts"),
    Rule(
        path=("spec", "clocksMhz"),
        cel="self.isSorted()",
        message="clocks must rise from the lowest to the highest",
        holds=lambda clocks, _: clocks == sorted(clocks),
    ),
    Rule(
        path=("spec", "flops"),
        cel=f"self.all(p, p in [{', '.join(repr(word) for word in PRECISIONS)}])",
        message=f"flops are given by precision, which is one of {', '.join(PRECISIONS)}",
        holds=lambda flops, _: set(flops) <= set(PRECISIONS),
    ),
    Rule(
        path=("spec", "flops"),
        cel="size(self) == 0 || 'bf16' in self || 'fp16' in self",
        message="step times are computed from the speed at 16 bits; give bf16 or fp16",
        holds=lambda flops, _: not flops or "bf16" in flops or "fp16" in flops,
    ),
)

# ------------------------------------------------------------------------------------------------ PowerDomain


def _own_parent(domain: JsonObject, _: Any) -> bool:
    parent = domain.get("spec", {}).get("parent", "")
    return not parent or parent != domain.get("metadata", {}).get("name")


def _has_requirements(selector: JsonObject, _: Any) -> bool:
    return bool(selector.get("matchLabels") or selector.get("matchExpressions"))


_REQUIREMENTS = ("spec", "members", "selector", "matchExpressions", EACH)

_POWER_DOMAIN = (
    Rule(
        path=(),
        cel="!has(self.spec.parent) || self.spec.parent != self.metadata.name",
        message="a power domain cannot be its own parent; leave spec.parent out for a root",
        field=".spec.parent",
        holds=_own_parent,
    ),
    Rule(
        path=("spec", "members", "selector"),
        cel="(has(self.matchLabels) && self.matchLabels.size() > 0)"
        " || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
        message="a selector without requirements chooses no node; give matchLabels or matchExpressions",
        holds=_has_requirements,
    ),
    Rule(
        path=("spec", "members", "selector", "matchLabels"),
        cel="self.all(k, k.size() <= 317)",
        message="a label's name has at most 317 characters",
        holds=lambda labels, _: all(len(name) <= 317 for name in labels),
    ),
    Rule(
        path=_REQUIREMENTS,
        cel="!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
        message="In and NotIn compare with values; give at least one",
        field=".values",
        holds=lambda need, _: need["operator"] not in {"In", "NotIn"} or bool(need.get("values")),
    ),
    Rule(
        path=_REQUIREMENTS,
        cel="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
        message="Exists and DoesNotExist compare with no value; leave values out",
        field=".values",
        holds=lambda need, _: need["operator"] not in {"Exists", "DoesNotExist"} or not need.get("values"),
    ),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "ModelService": (*_MODEL_SERVICE, *POD_RULES),
    "TrainingJob": (*_TRAINING_JOB, *POD_RULES, *RANK_RULES),
    "AcceleratorClass": _ACCELERATOR_CLASS,
    "PowerDomain": _POWER_DOMAIN,
}
"""Every rule across fields, by kind. AcceleratorNode has none: it is all status, reported by its agent."""


def broken(kind: str, obj: JsonObject, old: JsonObject | None = None) -> list[tuple[str, str]]:
    """The rules an object breaks, as (dotted path of the culprit, sentence); empty when none.

    The object must fit its schema. `old` is what it replaces; without it rules on changes are left out.
    """
    found: list[tuple[str, str]] = []
    for rule in RULES.get(kind, ()):
        if rule.transition and old is None:
            continue
        before = dict(_values(old, rule.path, "")) if rule.transition else {}
        for at, value in _values(obj, rule.path, ""):
            if rule.transition and at not in before:
                continue
            if not rule.holds(value, before.get(at)):
                found.append(((at + rule.field).removeprefix("."), rule.message))
    return found


def _values(value: Any, path: tuple[str, ...], at: str) -> Iterator[tuple[str, Any]]:
    """The values at a path, each with its own dotted path; none where something on the way is absent."""
    if not path:
        yield at, value
    elif path[0] == EACH:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from _values(item, path[1:], f"{at}[{index}]")
    elif isinstance(value, dict) and value.get(path[0]) is not None:
        yield from _values(value[path[0]], path[1:], f"{at}.{path[0]}" if at else path[0])
