"""What the tables of bad manifests are made of: sound manifests to spoil, and the API server's way of refusing."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]


LEFT_OUT = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation"
)
"""What the server adds when a fault keeps it from looking at the rules across fields."""


LONG = "a" * 1_000_000
CUT = f"{'a' * 511}... (1000002 characters)"
"""How the embedded store shows it, after an opening quotation mark."""


class Said(NamedTuple):
    """What the server answers with 422: the faults of one object."""

    kind: str
    name: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        """The whole sentence."""
        what = self.faults[0] if len(self.faults) == 1 else f"[{', '.join(self.faults)}]"
        closing = "" if self.name == CUT else '"'
        return f'{self.kind}.plimsoll.dev "{self.name}{closing} is invalid: {what}'


class Bad(NamedTuple):
    """A case: its story, the object, what the API server answers (a text: with 400), and the field whose line the
    loader must point to. `apart` has the embedded store's words where they are not the server's, and `why` says why.
    """

    story: str
    obj: Json
    words: Said | str
    field: str = ""
    apart: Said | None = None
    why: str = ""


class Change(NamedTuple):
    """A case of a change: the object before, its status before, and the merge patch of one part of it."""

    story: str
    obj: Json
    status: Json
    patch: Json
    words: Said
    subresource: Literal["", "status"] = ""
    cel: bool = False


def said(kind: str, name: str, *faults: str) -> Said:
    """A refusal."""
    return Said(kind, name, faults)


M, T = partial(said, "ModelService", "chat"), partial(said, "TrainingJob", "tune")
A, P = partial(said, "AcceleratorClass", "l4"), partial(said, "PowerDomain", "row-a")
N = partial(said, "AcceleratorNode", "gpu-1")
POOL: Json = {"name": "od", "dollarsPerGpuHour": 1, "pricedAt": "2026-07-20"}


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
