"""Keeps capacity beliefs in step with products, models and objectives, through the estimator seam.

Nothing here waits on the way to a decision: a variant without a belief is not chosen, and its reason says so.
"""

from __future__ import annotations

import msgspec

from cluster.hardware import AcceleratorClass
from cluster.observer import Observer
from cluster.serving import LoadHistogram, Service
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity, RooflineConfig
from policies.shapes import DEFAULT_EDGES

ROOFLINE_ERROR = 0.16
"""Half-width of the roofline's band: its median error against real silicon (research: gpu-selection §2.7)."""

_BLANK = LoadHistogram(
    service="",
    input_edges=DEFAULT_EDGES[0],
    output_edges=DEFAULT_EDGES[1],
    cells=(0.0,) * (len(DEFAULT_EDGES[0]) * len(DEFAULT_EDGES[1])),
    window_seconds=1.0,
)


class CapacityBeliefs:
    """Roofline beliefs of every allowed variant of every service, formed once per question."""

    def __init__(self, error: float = ROOFLINE_ERROR) -> None:
        """Start with none."""
        self._estimator = RooflineCapacity(RooflineConfig(error=error))
        self._state = self._estimator.initial()

    def refresh(self, observer: Observer, now_seconds: float) -> int:
        """Ask what was not asked yet; how many beliefs were formed."""
        fresh = [q for q in self._questions(observer) if self._state.asked.get(q.key) != q]
        if not fresh:
            return 0
        for question in fresh:
            self._state = self._estimator.fold(question, self._state)
        formed = {
            q.key: msgspec.structs.replace(self._state.beliefs[q.key], as_of_seconds=now_seconds) for q in fresh
        }
        observer.believe("capacity", formed)
        return len(formed)

    @staticmethod
    def _questions(observer: Observer) -> list[CapacityQuestion]:
        services: dict[str, Service] = observer.live("services")
        accelerators: dict[str, AcceleratorClass] = observer.live("accelerators")
        return [
            CapacityQuestion(
                model=service.model,
                variant=variant,
                objective=objective,
                accelerator=accelerators[variant.accelerator],
                load=_BLANK,
            )
            for _, service in sorted(services.items())
            for objective in service.objectives
            for variant in service.variants
            if variant.accelerator in accelerators
        ]
