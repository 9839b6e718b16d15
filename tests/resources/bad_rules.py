"""Objects and changes that only a rule in CEL refuses, and changes that a schema refuses."""

from __future__ import annotations

from typing import Any

from tests.resources.bad import LEFT_OUT, A, Bad, Change, Json, M, N, P, T, domain, job, product, service

RULED: tuple[Bad, ...] = (
    Bad("fewest above most", service({"minReplicas": 5, "maxReplicas": 4}),
        M("spec.minReplicas: Invalid value: minReplicas must not be greater than maxReplicas; lower the one or raise the other"), "spec.minReplicas"),
    Bad("a variant on a product that is not listed", service({"accelerators": ["h100"], "variants": [{"accelerator": "l4"}]}),
        M("spec.variants: Invalid value: a variant must run on one of spec.accelerators; list its accelerator there, or leave the list out"), "spec.variants"),
    Bad("a part of two GPUs", service({"variants": [{"accelerator": "l4", "gpus": 2, "gpuMilli": 500}]}),
        M("spec.variants[0].gpuMilli: Invalid value: gpuMilli is a part of one GPU; give gpus: 1, or leave gpuMilli out"), "spec.variants[0].gpuMilli"),
    Bad("heads without their width", service({"model": {"name": "mine", "kvHeads": 8}}),
        M("spec.model.kvHeads: Invalid value: kvHeads and headDim say together what a token takes; give both or neither"), "spec.model.kvHeads"),
    Bad("requests without tokens", service({"expectedLoad": {"requestsPerSecond": 2, "inputTokens": 0, "outputTokens": 0}}),
        M("spec.expectedLoad.requestsPerSecond: Invalid value: requests without tokens are no load; give inputTokens or outputTokens"), "spec.expectedLoad.requestsPerSecond"),
    Bad("a waiting room without bytes", service({"hold": {"maxBytes": 0}}),
        M("spec.hold.maxRequests: Invalid value: a waiting room without bytes or without time holds nothing; set maxRequests to 0 to refuse at once"), "spec.hold"),
    Bad("a waiting room without time", service({"hold": {"deadlineSeconds": 0}}),
        M("spec.hold.maxRequests: Invalid value: a waiting room without bytes or without time holds nothing; set maxRequests to 0 to refuse at once"), "spec.hold"),
    Bad("a gang of at least four and at most two", job(nodes={"min": 4, "max": 2}),
        T("spec.nodes.min: Invalid value: min must not be greater than max; lower the one or raise the other"), "spec.nodes.min"),
    Bad("half a micro-batch", job(globalBatch=65, microBatch=2),
        T("spec.globalBatch: Invalid value: globalBatch must be a multiple of microBatch; a step is made of whole micro-batches"), "spec.globalBatch"),
    Bad("a micro-batch above the batch", job(globalBatch=64, microBatch=128),
        T("spec.globalBatch: Invalid value: globalBatch must be a multiple of microBatch; a step is made of whole micro-batches"), "spec.globalBatch"),
    Bad("nothing but saving", job(checkpoint={"intervalSeconds": 5, "secondsToWrite": 5}),
        T("spec.checkpoint.secondsToWrite: Invalid value: secondsToWrite must be less than intervalSeconds; the job would do nothing but save"), "spec.checkpoint.secondsToWrite"),
    Bad("safe below the lowest cap", product(safeWatts=30),
        A("spec.minWatts: Invalid value: minWatts must not be greater than safeWatts; lower the one or raise the other"), "spec.minWatts"),
    Bad("safe above the highest cap", product(safeWatts=80),
        A("spec.safeWatts: Invalid value: safeWatts must not be greater than maxWatts; lower the one or raise the other"), "spec.safeWatts"),
    Bad("a thermal power below the lowest cap", product(tdpWatts=39),
        A("spec.minWatts: Invalid value: minWatts must not be greater than tdpWatts; lower the one or raise the other"), "spec.minWatts"),
    Bad("a thermal power above the highest cap", product(tdpWatts=73),
        A("spec.tdpWatts: Invalid value: tdpWatts must not be greater than maxWatts; lower the one or raise the other"), "spec.tdpWatts"),
    Bad("clocks that fall", product(clocksMhz=[1410, 1200]),
        A("spec.clocksMhz: Invalid value: clocks must rise from the lowest to the highest"), "spec.clocksMhz"),
    Bad("speed at a precision nobody has", product(flops={"bf16": 121e12, "bf17": 121e12}),
        A("spec.flops: Invalid value: flops are given by precision, which is one of fp32, tf32, bf16, fp16, fp8, int8, fp4, int4"), "spec.flops"),
    Bad("speed at 8 bits alone", product(flops={"fp8": 242e12}),
        A("spec.flops: Invalid value: step times are computed from the speed at 16 bits; give bf16 or fp16"), "spec.flops"),
    Bad("a domain behind itself", domain(parent="row-a"),
        P("spec.parent: Invalid value: a power domain cannot be its own parent; leave spec.parent out for a root"), "spec.parent"),
    Bad("a selector of nothing", domain(members={"selector": {}}),
        P("spec.members.selector: Invalid value: a selector without requirements chooses no node; give matchLabels or matchExpressions"), "spec.members.selector"),
    Bad("a label's name of 318 letters", domain(members={"selector": {"matchLabels": {"r" * 318: "a"}}}),
        P("spec.members.selector.matchLabels: Invalid value: a label's name has at most 317 characters"), "spec.members.selector.matchLabels"),
    Bad("in no set", domain(members={"selector": {"matchExpressions": [{"key": "row", "operator": "In"}]}}),
        P("spec.members.selector.matchExpressions[0].values: Invalid value: In and NotIn compare with values; give at least one"), "spec.members.selector.matchExpressions[0]"),
    Bad("absent, with values", domain(members={"selector": {"matchExpressions": [{"key": "row", "operator": "DoesNotExist", "values": ["a"]}]}}),
        P("spec.members.selector.matchExpressions[0].values: Invalid value: Exists and DoesNotExist compare with no value; leave values out"), "spec.members.selector.matchExpressions[0].values"),
)  # fmt: skip
"""Each fits its schema; the embedded store takes it, and the loader and the operator refuse it."""

WHEN = "2026-11-21T00:00:00Z"
NODE: Json = {
    "apiVersion": "plimsoll.dev/v1alpha1",
    "kind": "AcceleratorNode",
    "metadata": {"name": "gpu-1"},
}


def condition(number: int = 0, **fields: Any) -> Json:
    """A sound condition, spoilt by the fields given."""
    sound = {
        "type": f"C{number}",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": WHEN,
    }
    return {**sound, **fields}


CHANGES: tuple[Change, ...] = (
    Change("a job's model is another one", job(), {}, {"spec": {"model": {"name": "gpt-3-6.7b"}}},
        T("spec.model: Forbidden: the model of a job cannot change, since its checkpoints are of the old one; make a new TrainingJob"),
        cel=True),
    Change("a job's model gets a shape", job(), {}, {"spec": {"model": {"layers": 4}}},
        T("spec.model: Forbidden: the model of a job cannot change, since its checkpoints are of the old one; make a new TrainingJob"),
        cel=True),
    Change("more steps of a job that is done", job(), {"phase": "Succeeded"}, {"spec": {"steps": 200}},
        T("spec: Forbidden: a job that has ended cannot be changed; make a new TrainingJob"), cel=True),
    Change("an attempt before the last", job(), {"attempt": 3}, {"status": {"attempt": 2}},
        T("status.attempt: Forbidden: attempt never goes back; ranks of an older gang would be let in again"),
        "status", cel=True),
    Change("an attempt forgotten", job(), {"attempt": 3}, {"status": None},
        T("status.attempt: Forbidden: attempt never goes back; ranks of an older gang would be let in again"),
        "status", cel=True),
    Change("most below fewest", service({"minReplicas": 3}), {}, {"spec": {"maxReplicas": 2}},
        M("spec.minReplicas: Invalid value: minReplicas must not be greater than maxReplicas; lower the one or raise the other"),
        cel=True),
    Change("a root put behind itself", domain(), {}, {"spec": {"parent": "row-a"}},
        P("spec.parent: Invalid value: a power domain cannot be its own parent; leave spec.parent out for a root"),
        cel=True),
    Change("a mode that becomes none", service(), {}, {"spec": {"mode": "Sometimes"}},
        M('spec.mode: Unsupported value: "Sometimes": supported values: "Auto", "Off", "Recommend"', LEFT_OUT)),
    Change("a model taken away", service(), {}, {"spec": {"model": None}}, M("spec.model: Required value", LEFT_OUT)),
    Change("scaled below nothing", service(), {}, {"spec": {"replicas": -2}},
        M("spec.replicas: Invalid value: -2: spec.replicas in body should be greater than or equal to 0",
          ".spec.replicas: Invalid value: -2: should be a non-negative integer")),
    Change("a label that gets a blank", service(), {}, {"metadata": {"labels": {"team": "shop floor"}}},
        M("metadata.labels: Invalid value: \"shop floor\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")),
    Change("a phase that there is not", service(), {}, {"status": {"phase": "Happy"}},
        M('status.phase: Unsupported value: "Happy": supported values: "AtZero", "Degraded", "Pending", "Refused", "Serving", "Starting"',
          LEFT_OUT), "status"),
    Change("nine conditions", service(), {}, {"status": {"conditions": [condition(i) for i in range(9)]}},
        M("status.conditions: Too many: 9: must have at most 8 items", LEFT_OUT), "status"),
    Change("one condition twice", service(), {}, {"status": {"conditions": [condition(), condition()]}},
        M('status.conditions[1]: Duplicate value: {"type":"C0"}'), "status"),
    Change("a message longer than a page", service(), {}, {"status": {"conditions": [condition(message="m" * 1_025)]}},
        M("status.conditions[0].message: Too long: may not be more than 1024 bytes", LEFT_OUT), "status"),
    Change("a time in words", service(), {}, {"status": {"conditions": [condition(lastTransitionTime="yesterday")]}},
        M('status.conditions[0].lastTransitionTime: Invalid value: "yesterday": conditions[0].lastTransitionTime in body '
          r"should match '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$'"), "status"),
    Change("a GPU twice on a node", NODE, {}, {"status": {"gpus": [{"index": 0, "uuid": "a"}, {"index": 0, "uuid": "b"}]}},
        N('status.gpus[1]: Duplicate value: {"index":0}'), "status"),
    Change("fewer than no GPUs", NODE, {}, {"status": {"gpuCount": -1}},
        N("status.gpuCount: Invalid value: -1: gpuCount in body should be greater than or equal to 0"), "status"),
)  # fmt: skip
"""Each from a sound object; those of `cel` the embedded store takes."""
