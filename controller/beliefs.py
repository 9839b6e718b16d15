"""Keeps capacity beliefs in step with products, models and objectives, through the estimator seam.

Nothing here waits on the way to a decision: a variant without a belief is not chosen, and its reason says so.
"""

from __future__ import annotations

import msgspec

from cluster.beliefs import Beliefs
from cluster.hardware import AcceleratorClass
from cluster.observer import Observer
from cluster.serving import LoadHistogram, Service
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity, RooflineConfig
from policies.shapes import declared

ROOFLINE_ERROR = 0.16
"""Half-width of the roofline's band: its median error against real silicon (research: gpu-selection §2.7)."""


class CapacityBeliefs:
    """Roofline beliefs of every allowed variant of every service, formed once per question."""

    def __init__(self, error: float = ROOFLINE_ERROR) -> None:
        """Start with none."""
        self._estimator = RooflineCapacity(RooflineConfig(error=error))
        self._state = self._estimator.initial()
        self._looked_at: tuple[object, ...] = ()

    def refresh(self, observer: Observer, now_seconds: float) -> int:
        """Ask what was not asked yet; how many beliefs were formed."""
        # Nouns are immutable: the same objects ask the same questions.
        nouns = (*observer.live("services").values(), *observer.live("accelerators").values())
        if len(nouns) == len(self._looked_at) and all(
            a is b for a, b in zip(nouns, self._looked_at, strict=True)
        ):
            return 0
        self._looked_at = nouns
        fresh = [q for q in self._questions(observer) if self._state.asked.get(q.key) != q]
        if not fresh:
            return 0
        for question in fresh:
            self._state = self._estimator.fold(question, self._state)
        formed = {
            q.key: msgspec.structs.replace(self._state.beliefs[q.key], as_of_seconds=now_seconds)
            for q in fresh
        }
        observer.believe("capacity", formed)
        return len(formed)

    @staticmethod
    def _questions(observer: Observer) -> list[CapacityQuestion]:
        """One question a (model, variant, promise); of services that share one, the first by name declares the load."""
        services: dict[str, Service] = observer.live("services")
        accelerators: dict[str, AcceleratorClass] = observer.live("accelerators")
        questions: dict[str, CapacityQuestion] = {}
        for _, service in sorted(services.items()):
            for objective in service.objectives:
                load = expected_load(service, objective.request_class)
                for variant in service.variants:
                    key = Beliefs.capacity_key(service.model.name, variant.key, objective.key)
                    if key in questions or variant.accelerator not in accelerators:
                        continue
                    questions[key] = CapacityQuestion(
                        model=service.model,
                        variant=variant,
                        objective=objective,
                        accelerator=accelerators[variant.accelerator],
                        load=load,
                    )
        return list(questions.values())


def expected_load(service: Service, request_class: str) -> LoadHistogram:
    """The declared sizes of a class as a histogram of one request per second: they weigh the concurrency that the
    headroom is made from, and the rate has no part in that.
    """
    shape = declared(service)
    cells = shape.cells.get(request_class, next(iter(shape.cells.values())))
    return LoadHistogram(
        service="",
        request_class=request_class,
        input_edges=shape.input_edges,
        output_edges=shape.output_edges,
        cells=tuple(cells),
        window_seconds=1.0,
    )
