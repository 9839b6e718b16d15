"""Keeps capacity beliefs in step with products, models and objectives.

A belief is formed once per (model, variant, objective, product version); nothing here waits for it on
the way to a decision: a variant without one is not chosen, and its reason says so.
"""

from __future__ import annotations

import msgspec

from cluster.beliefs import Beliefs, CapacityBelief
from cluster.hardware import AcceleratorClass
from cluster.observer import Observer
from cluster.serving import LoadHistogram, Model, Objective, Service, Variant
from placement.profiles.belief import roofline_belief
from placement.profiles.steptime import GpuFigures
from policies.shapes import DEFAULT_EDGES

_BLANK = LoadHistogram(
    service="",
    input_edges=DEFAULT_EDGES[0],
    output_edges=DEFAULT_EDGES[1],
    cells=(0.0,) * (len(DEFAULT_EDGES[0]) * len(DEFAULT_EDGES[1])),
    window_seconds=1.0,
)


class _Subject(msgspec.Struct, frozen=True):
    """What a belief depends on."""

    model: Model
    variant: Variant
    objective: Objective
    accelerator: AcceleratorClass


class CapacityBeliefs:
    """Roofline beliefs of every allowed variant of every service."""

    def __init__(self) -> None:
        """Start with none."""
        self._formed: dict[str, _Subject] = {}
        self._seen: tuple[int, int] = (-1, -1)
        self.failures: dict[str, str] = {}

    def refresh(self, observer: Observer, now_seconds: float) -> int:
        """Form what is missing or outdated; how many beliefs were formed."""
        services: dict[str, Service] = observer.live("services")
        accelerators: dict[str, AcceleratorClass] = observer.live("accelerators")
        formed: dict[str, CapacityBelief] = {}
        for _, service in sorted(services.items()):
            for objective in service.objectives:
                for variant in service.variants:
                    accelerator = accelerators.get(variant.accelerator)
                    if accelerator is None:
                        continue
                    subject = _Subject(service.model, variant, objective, accelerator)
                    key = Beliefs.capacity_key(service.model.name, variant.key, objective.key)
                    if self._formed.get(key) != subject:
                        self._formed[key] = subject
                        belief = self._form(key, subject, now_seconds)
                        if belief is not None:
                            formed[key] = belief
        if formed:
            observer.believe("capacity", formed)
        return len(formed)

    def _form(self, key: str, subject: _Subject, now_seconds: float) -> CapacityBelief | None:
        gpu = gpu_figures(subject.accelerator)
        try:
            belief = roofline_belief(
                gpu, subject.model, subject.variant, subject.objective, _BLANK, as_of_seconds=now_seconds
            )
        except ValueError as error:
            self.failures[key] = str(error)
            return None
        self.failures.pop(key, None)
        return msgspec.structs.replace(belief, request_class=subject.objective.key)


def gpu_figures(accelerator: AcceleratorClass) -> GpuFigures:
    """A product as the step-time formula reads it."""
    flops = accelerator.flops
    sixteen = flops.get("bf16") or flops.get("fp16") or 0.0
    return GpuFigures(
        name=accelerator.name,
        memory_bytes=accelerator.memory_bytes,
        bandwidth_bytes_per_second=float(accelerator.bandwidth_bytes_per_second),
        flops_16bit_per_second=sixteen,
        flops_8bit_per_second=flops.get("fp8") or flops.get("int8") or 0.0,
        link_bytes_per_second=float(accelerator.link_bytes_per_second),
        fabric=accelerator.fabric,
    )
