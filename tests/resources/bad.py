"""Bad manifests, and what must be said about each: by the store in the API server's words, and by the loader
with the line. One table for both, so that they cannot drift apart."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]


class Bad(NamedTuple):
    """A case: its story, the object, the server's sentence, and the line the loader must point to."""

    story: str
    obj: Json
    words: str
    field: str


def service(spec: Json | None = None, **metadata: Any) -> Json:
    """A ModelService; `spec` is laid over a sound one."""
    return {
        "apiVersion": "plimsoll.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "chat", "namespace": "default", **metadata},
        "spec": {"model": {"name": "llama-3.1-8b"}, **(spec or {})},
    }


def job(**spec: Any) -> Json:
    """A TrainingJob; `spec` is laid over a sound one."""
    sound = {"model": {"name": "gpt-3-1.3b"}, "gpusPerNode": 8, "steps": 100, "globalBatch": 64}
    return {
        "apiVersion": "plimsoll.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "tune", "namespace": "default"},
        "spec": {**sound, **spec},
    }


SOUND_CLASS: Json = {
    "memoryBytes": 25769803776,
    "bandwidthBytesPerSecond": 300000000000,
    "flops": {"bf16": 121e12},
    "minWatts": 40,
    "maxWatts": 72,
    "tdpWatts": 72,
    "safeWatts": 60,
}


def product(**spec: Any) -> Json:
    """An AcceleratorClass; `spec` is laid over a sound one."""
    return {
        "apiVersion": "plimsoll.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "l4"},
        "spec": {**SOUND_CLASS, **spec},
    }


def domain(**spec: Any) -> Json:
    """A PowerDomain; `spec` is laid over a sound one."""
    return {
        "apiVersion": "plimsoll.dev/v1alpha1",
        "kind": "PowerDomain",
        "metadata": {"name": "row-a"},
        "spec": {"ratingWatts": 1000, **spec},
    }


def without(obj: Json, *names: str) -> Json:
    """The object without some fields of its spec."""
    return {**obj, "spec": {k: v for k, v in obj["spec"].items() if k not in names}}


def objective(**fields: Any) -> Json:
    """An objective laid over a sound one."""
    return {"ttftSeconds": 1.0, "tpotSeconds": 0.1, **fields}


M = 'ModelService.plimsoll.dev "chat" is invalid: '
T = 'TrainingJob.plimsoll.dev "tune" is invalid: '
A = 'AcceleratorClass.plimsoll.dev "l4" is invalid: '
P = 'PowerDomain.plimsoll.dev "row-a" is invalid: '

BAD: tuple[Bad, ...] = (
    Bad("a negative limit", service({"maxReplicas": -1}),
        f"{M}spec.maxReplicas: Invalid value: -1: spec.maxReplicas in body should be greater than or equal to 0",
        "spec.maxReplicas"),
    Bad("an absurd size", service({"replicas": 2_000_000_000}),
        f"{M}spec.replicas: Invalid value: 2000000000: spec.replicas in body should be less than or equal to 10000",
        "spec.replicas"),
    Bad("a size that is half", service({"minReplicas": 1.5}),
        f'{M}spec.minReplicas: Invalid value: "number": spec.minReplicas in body must be of type integer: "number"',
        "spec.minReplicas"),
    Bad("a size in words", service({"minReplicas": "two"}),
        f'{M}spec.minReplicas: Invalid value: "string": spec.minReplicas in body must be of type integer: "string"',
        "spec.minReplicas"),
    Bad("a size that is a truth", service({"minReplicas": True}),
        f'{M}spec.minReplicas: Invalid value: "boolean": spec.minReplicas in body must be of type integer: "boolean"',
        "spec.minReplicas"),
    Bad("no model", without(service(), "model"), f"{M}spec.model: Required value", "spec"),
    Bad("a model without a name", service({"model": {"layers": 32}}), f"{M}spec.model.name: Required value",
        "spec.model"),
    Bad("a model that is nothing", service({"model": None}),
        f'{M}spec.model: Invalid value: "null": spec.model in body must be of type object: "null"', "spec.model"),
    Bad("a model's name that is empty", service({"model": {"name": ""}}),
        f'{M}spec.model.name: Invalid value: "": spec.model.name in body should be at least 1 chars long',
        "spec.model.name"),
    Bad("a model's name of 1 MB", service({"model": {"name": "m" * 1_000_000}}),
        f"{M}spec.model.name: Too long: may not be more than 128 bytes", "spec.model.name"),
    Bad("a model without layers", service({"model": {"name": "x", "layers": 0}}),
        f"{M}spec.model.layers: Invalid value: 0: spec.model.layers in body should be greater than or equal to 1",
        "spec.model.layers"),
    Bad("no specification at all", {k: v for k, v in service().items() if k != "spec"},
        f"{M}spec: Required value", ""),
    Bad("a mode that is none", service({"mode": "auto"}),
        f'{M}spec.mode: Unsupported value: "auto": supported values: "Auto", "Off", "Recommend"', "spec.mode"),
    Bad("a promise of no time at all", service({"objectives": [objective(ttftSeconds=0)]}),
        f"{M}spec.objectives[0].ttftSeconds: Invalid value: 0: spec.objectives[0].ttftSeconds in body should be "
        "greater than 0", "spec.objectives[0].ttftSeconds"),
    Bad("a negative promise", service({"objectives": [objective(tpotSeconds=-0.04)]}),
        f"{M}spec.objectives[0].tpotSeconds: Invalid value: -0.04: spec.objectives[0].tpotSeconds in body should "
        "be greater than 0", "spec.objectives[0].tpotSeconds"),
    Bad("a promise half made", service({"objectives": [{"class": "chat", "ttftSeconds": 1}]}),
        f"{M}spec.objectives[0].tpotSeconds: Required value", "spec.objectives[0]"),
    Bad("a percentile of everything", service({"objectives": [objective(percentile=1.0)]}),
        f"{M}spec.objectives[0].percentile: Invalid value: 1: spec.objectives[0].percentile in body should be "
        "less than 1", "spec.objectives[0].percentile"),
    Bad("a percentile in percent", service({"objectives": [objective(percentile=95)]}),
        f"{M}spec.objectives[0].percentile: Invalid value: 95: spec.objectives[0].percentile in body should be "
        "less than 1", "spec.objectives[0].percentile"),
    Bad("one class twice", service({"objectives": [objective(), objective(ttftSeconds=2)]}),
        f'{M}spec.objectives[1]: Duplicate value: {{"class":"default"}}', "spec.objectives[1]"),
    Bad("nine classes", service({"objectives": [objective(**{"class": f"c{i}"}) for i in range(9)]}),
        f"{M}spec.objectives: Too many: 9: must have at most 8 items", "spec.objectives"),
    Bad("a class with a blank", service({"objectives": [objective(**{"class": "my chat"})]}),
        f'{M}spec.objectives[0].class: Invalid value: "my chat": spec.objectives[0].class in body should match '
        "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'", "spec.objectives[0].class"),
    Bad("objectives that are no list", service({"objectives": objective()}),
        f'{M}spec.objectives: Invalid value: "object": spec.objectives in body must be of type array: "object"',
        "spec.objectives"),
    Bad("a product in capitals", service({"accelerators": ["H100"]}),
        f'{M}spec.accelerators[0]: Invalid value: "H100": spec.accelerators[0] in body should match '
        r"'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'", "spec.accelerators[0]"),
    Bad("a product twice", service({"accelerators": ["l4", "l4"]}),
        f'{M}spec.accelerators[1]: Duplicate value: "l4"', "spec.accelerators[1]"),
    Bad("a replica of no GPU", service({"variants": [{"accelerator": "l4", "gpus": 0}]}),
        f"{M}spec.variants[0].gpus: Invalid value: 0: spec.variants[0].gpus in body should be greater than or "
        "equal to 1", "spec.variants[0].gpus"),
    Bad("a precision nobody has", service({"variants": [{"accelerator": "l4", "precision": "fp12"}]}),
        f'{M}spec.variants[0].precision: Unsupported value: "fp12": supported values: "bf16", "fp16", "fp32", '
        '"fp4", "fp8", "int4", "int8", "tf32"', "spec.variants[0].precision"),
    Bad("a load below nothing", service({"expectedLoad": {"requestsPerSecond": -3}}),
        f"{M}spec.expectedLoad.requestsPerSecond: Invalid value: -3: spec.expectedLoad.requestsPerSecond in body "
        "should be greater than or equal to 0", "spec.expectedLoad.requestsPerSecond"),
    Bad("a load of the whole world", service({"expectedLoad": {"requestsPerSecond": 1e12}}),
        f"{M}spec.expectedLoad.requestsPerSecond: Invalid value: 1e+12: spec.expectedLoad.requestsPerSecond in "
        "body should be less than or equal to 1e+06", "spec.expectedLoad.requestsPerSecond"),
    Bad("a budget of more than half", service({"violationBudget": 0.9}),
        f"{M}spec.violationBudget: Invalid value: 0.9: spec.violationBudget in body should be less than or equal "
        "to 0.5", "spec.violationBudget"),
    Bad("a waiting room for a year", service({"hold": {"deadlineSeconds": 31_536_000}}),
        f"{M}spec.hold.deadlineSeconds: Invalid value: 31536000: spec.hold.deadlineSeconds in body should be less "
        "than or equal to 86400", "spec.hold.deadlineSeconds"),
    Bad("a policy without a name", service({"policies": {"scale": {"config": {}}}}),
        f"{M}spec.policies.scale.name: Required value", "spec.policies.scale"),
    Bad("a name of 41 letters", service(name="a" * 41),
        f'ModelService.plimsoll.dev "{"a" * 41}" is invalid: metadata.name: Too long: may not be more than 40 bytes',
        "metadata.name"),
    Bad("a name that no Service could have", service(name="1chat"),
        'ModelService.plimsoll.dev "1chat" is invalid: metadata.name: Invalid value: "1chat": metadata.name in '
        "body should match '^[a-z]([-a-z0-9]*[a-z0-9])?$'", "metadata.name"),
    Bad("a job of no step", job(steps=0),
        f"{T}spec.steps: Invalid value: 0: spec.steps in body should be greater than or equal to 1", "spec.steps"),
    Bad("a job that says nothing", without(job(), "gpusPerNode", "steps", "globalBatch"),
        f"{T}[spec.gpusPerNode: Required value, spec.steps: Required value, spec.globalBatch: Required value]",
        "spec"),
    Bad("a node of a thousand GPUs", job(gpusPerNode=1000),
        f"{T}spec.gpusPerNode: Invalid value: 1000: spec.gpusPerNode in body should be less than or equal to 64",
        "spec.gpusPerNode"),
    Bad("a gang of no node", job(nodes={"min": 0}),
        f"{T}spec.nodes.min: Invalid value: 0: spec.nodes.min in body should be greater than or equal to 1",
        "spec.nodes.min"),
    Bad("a runtime nobody ships", job(runtime="mpi"),
        f'{T}spec.runtime: Unsupported value: "mpi": supported values: "ray", "torchrun"', "spec.runtime"),
    Bad("a checkpoint all the time", job(checkpoint={"intervalSeconds": 0}),
        f"{T}spec.checkpoint.intervalSeconds: Invalid value: 0: spec.checkpoint.intervalSeconds in body should be "
        "greater than or equal to 1", "spec.checkpoint.intervalSeconds"),
    Bad("a command that is one line", job(command="torchrun train.py"),
        f'{T}spec.command: Invalid value: "string": spec.command in body must be of type array: "string"',
        "spec.command"),
    Bad("a command of 65 words", job(command=["x"] * 65),
        f"{T}spec.command: Too many: 65: must have at most 64 items", "spec.command"),
    Bad("a GPU without memory", product(memoryBytes=0),
        f"{A}spec.memoryBytes: Invalid value: 0: spec.memoryBytes in body should be greater than or equal to 1",
        "spec.memoryBytes"),
    Bad("memory with a unit", product(memoryBytes="24Gi"),
        f'{A}spec.memoryBytes: Invalid value: "string": spec.memoryBytes in body must be of type integer: "string"',
        "spec.memoryBytes"),
    Bad("speed in words", product(flops={"bf16": "fast"}),
        f'{A}spec.flops.bf16: Invalid value: "string": spec.flops.bf16 in body must be of type number: "string"',
        "spec.flops.bf16"),
    Bad("nine precisions", product(flops={f"p{i}": 1e12 for i in range(9)}),
        f"{A}spec.flops: Too many: 9: must have at most 8 items", "spec.flops"),
    Bad("a price without a date", product(pools=[{"name": "od", "dollarsPerGpuHour": 1}]),
        f"{A}spec.pools[0].pricedAt: Required value", "spec.pools[0]"),
    Bad("a date in another order",
        product(pools=[{"name": "od", "dollarsPerGpuHour": 1, "pricedAt": "20-07-2026"}]),
        f'{A}spec.pools[0].pricedAt: Invalid value: "20-07-2026": spec.pools[0].pricedAt in body should match '
        r"'^\d{4}-\d\d-\d\d$'", "spec.pools[0].pricedAt"),
    Bad("a market of thieves",
        product(pools=[{"name": "od", "dollarsPerGpuHour": 1, "pricedAt": "2026-07-20", "market": "stolen"}]),
        f'{A}spec.pools[0].market: Unsupported value: "stolen": supported values: "on_demand", "reserved", "spot"',
        "spec.pools[0].market"),
    Bad("a way to share that is none", product(sharing="mps"),
        f'{A}spec.sharing: Unsupported value: "mps": supported values: "dra", "mig", "none", "timeSlicing"',
        "spec.sharing"),
    Bad("a breaker that carries nothing", domain(ratingWatts=0),
        f"{P}spec.ratingWatts: Invalid value: 0: spec.ratingWatts in body should be greater than or equal to 1",
        "spec.ratingWatts"),
    Bad("a margin of everything", domain(marginFraction=1),
        f"{P}spec.marginFraction: Invalid value: 1: spec.marginFraction in body should be less than or equal to 0.9",
        "spec.marginFraction"),
    Bad("a node twice behind one breaker", domain(members={"nodes": ["n1", "n1"]}),
        f'{P}spec.members.nodes[1]: Duplicate value: "n1"', "spec.members.nodes[1]"),
    Bad("five thousand and one nodes", domain(members={"nodes": [f"n{i}" for i in range(5_001)]}),
        f"{P}spec.members.nodes: Too many: 5001: must have at most 5000 items", "spec.members.nodes"),
)  # fmt: skip
