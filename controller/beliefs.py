"""Keeps capacity beliefs in step with products, models and objectives, through the estimator seam.

Nothing here waits on the way to a decision: a variant without a belief is not chosen, and its reason says so.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from cluster.beliefs import Beliefs, CapacityBelief
from cluster.hardware import AcceleratorClass
from cluster.observer import Observer
from cluster.serving import LoadHistogram, Replica, Service
from controller.config import ProfileSettings
from controller.hub.messages import NodeReport
from controller.learned import Learned, bounded, calibration_of, counted, learned_of
from controller.observe.live import LiveSample, LiveSteps
from controller.profiles import ProfileFolder
from placement.catalogue import Catalogue, load
from placement.profiles.calibration import Calibration, Deployment, Samples, observed
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity, RooflineConfig
from placement.profiles.figures import MODERN
from placement.profiles.grid import Floats
from placement.profiles.layers import Sources, computable, deployment_of, judged
from placement.profiles.shipped import shipped_constants
from policies.shapes import declared

log = logging.getLogger("plimsoll.beliefs")

SIMULATED = "simulated"
"""Version that a driver without GPUs says it has."""

ROOFLINE_ERROR = 0.16
"""Half-width of the roofline's band: its median error against real silicon (research: gpu-selection §2.7)."""


LEARN_SECONDS = 30.0
"""How often live samples are learned: each time costs some 10 ms a deployment, and plans should not follow every window."""

MOVED = 0.02
"""Relative change of a belief from which on it is told again: plans are not made anew for less."""


class CapacityBeliefs:
    """Beliefs of every allowed variant of every service: asked of the roofline once a question, then what is known better.

    Online measurements come before the user's profiles, those before shipped constants, those before the roofline
    (`placement.profiles.layers`).
    """

    def __init__(self, error: float = ROOFLINE_ERROR, settings: ProfileSettings | None = None) -> None:
        """Start with none."""
        self._estimator = RooflineCapacity(RooflineConfig(error=error))
        self._state = self._estimator.initial()
        self._looked_at: tuple[object, ...] = ()
        self._settings = settings or ProfileSettings()
        self._folder = ProfileFolder(
            self._settings.folder, load() if self._settings.folder else Catalogue({})
        )
        self._live = LiveSteps()
        self._learn_due = float("-inf")
        self._sources = Sources(quantile=self._settings.quantile, silicon=False)
        self._judged_by: Sources | None = None
        self._kept: Learned | None = None
        self._learned_of: tuple[Calibration, Learned] | None = None
        if self._settings.measured is True:
            self._begin_learning(silicon=True)
        self._told: dict[str, CapacityBelief] = {}

    def hear(self, report: NodeReport) -> None:
        """Take an agent's report in, for what it says about the speed of running engines.

        Whether its GPUs are real is what its driver says; one real node among simulated ones decides, one without GPUs
        says nothing.
        """
        if self._settings.measured == "auto" and report.inventory is not None and report.inventory.devices:
            silicon = report.inventory.driver_version != SIMULATED
            if self._sources.calibration is None or (silicon and not self._sources.silicon):
                self._begin_learning(silicon)
        if self._sources.calibration is not None:
            self._live.hear(report)

    def learned(self) -> Learned | None:
        """What outlives this leader, the same object while it is the same; None while nothing is learned."""
        found = self._sources
        if found.calibration is None:
            return self._kept
        if self._learned_of is None or self._learned_of[0] is not found.calibration:
            learned = learned_of(found.calibration, found.live, found.silicon)
            self._learned_of = (found.calibration, learned)
        return self._learned_of[1]

    def recall(self, learned: Learned) -> None:
        """Go on from what a former leader had learned, now or as soon as learning begins."""
        self._kept = learned
        if self._sources.calibration is not None:
            self._begin_learning(self._sources.silicon)

    def _begin_learning(self, silicon: bool) -> None:
        """From what was kept, or from the constants; what was kept and does not fit is told and dropped."""
        calibration = Calibration(constants=shipped_constants("") if silicon else MODERN)
        live: dict[str, int] = {}
        if self._kept is not None:
            try:
                calibration = calibration_of(self._kept, calibration.constants, silicon)
                live = self._kept.live
            except ValueError as why:
                log.warning(
                    "what running engines taught a former leader cannot be used: %s; it is learned anew", why
                )
            self._kept = None
        self._sources = msgspec.structs.replace(
            self._sources, calibration=calibration, live=live, silicon=silicon
        )

    def refresh(self, observer: Observer, now_seconds: float) -> int:
        """Ask what was not asked yet, and tell what is known better now; how many beliefs were formed."""
        # Nouns are immutable: the same objects ask the same questions.
        nouns = (*observer.live("services").values(), *observer.live("accelerators").values())
        same = len(nouns) == len(self._looked_at) and all(
            a is b for a, b in zip(nouns, self._looked_at, strict=True)
        )
        self._renew(observer, now_seconds)
        if same and self._sources is self._judged_by:
            return 0
        self._judged_by = self._sources
        self._looked_at = nouns
        questions = self._questions(observer)
        self._forget({question.key for question in questions}, observer)
        for question in questions:
            self._state = self._estimator.fold(question, self._state)
        formed: dict[str, CapacityBelief] = {}
        for question in questions:
            belief = judged(question, self._state.beliefs[question.key], self._sources)
            if _moved(self._told.get(question.key), belief):
                self._told[question.key] = belief
                formed[question.key] = msgspec.structs.replace(belief, as_of_seconds=now_seconds)
        if formed:
            observer.believe("capacity", formed)
        return len(formed)

    def _forget(self, asked: set[str], observer: Observer) -> None:
        """Drop what nobody asks any more: every release of an engine asks anew."""
        past = self._told.keys() - asked
        if past:
            for key in past:
                del self._told[key]
            self._state = msgspec.structs.replace(
                self._state,
                asked={key: each for key, each in self._state.asked.items() if key in asked},
                beliefs={key: each for key, each in self._state.beliefs.items() if key in asked},
            )
            observer.disbelieve("capacity", past)

    def _renew(self, observer: Observer, now_seconds: float) -> None:
        """Read profiles that changed, and learn what running engines showed."""
        profiles = self._folder.profiles(now_seconds)
        if profiles != self._sources.profiles:
            self._sources = msgspec.structs.replace(self._sources, profiles=profiles)
        if self._sources.calibration is None or now_seconds < self._learn_due:
            return
        self._learn_due = now_seconds + LEARN_SECONDS
        replicas = observer.live("replicas")
        self._live.forget(set(replicas))
        where = {each.key: each for each in self._questions(observer)}
        sizes = _mean_sizes(observer.live("loads").values())
        samples = _samples(self._live.drain(), replicas, observer.live("services"), where, sizes)
        if samples:
            current = {deployment_of(each) for each in where.values()}
            more = {each.deployment.counted: 0 for each in samples}
            for each in samples:
                more[each.deployment.counted] += len(each.seconds)
            live = counted(self._sources.live, more, {each.counted for each in current})
            used = {name for each in current for name in (*each.offsets, *each.levels)}
            calibration = bounded(observed(self._sources.calibration, samples), used)
            self._sources = msgspec.structs.replace(self._sources, calibration=calibration, live=live)

    @staticmethod
    def _questions(observer: Observer) -> list[CapacityQuestion]:
        """One question a (model, variant, promise, image); of services that share one, the first by name declares the load."""
        services: dict[str, Service] = observer.live("services")
        accelerators: dict[str, AcceleratorClass] = observer.live("accelerators")
        questions: dict[str, CapacityQuestion] = {}
        for _, service in sorted(services.items()):
            for objective in service.objectives:
                load = expected_load(service, objective.request_class)
                for variant in service.variants:
                    if variant.accelerator not in accelerators:
                        continue
                    question = CapacityQuestion(
                        model=service.model,
                        variant=variant,
                        objective=objective,
                        accelerator=accelerators[variant.accelerator],
                        load=load,
                        image=service.image,
                    )
                    questions.setdefault(question.key, question)
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


Sizes = Mapping[str, tuple[float, float]]
"""Mean input and output tokens of a service's requests."""


def _mean_sizes(loads: Iterable[LoadHistogram]) -> dict[str, tuple[float, float]]:
    """By service, over all its classes, as its gateways measured them."""
    sums: dict[str, Floats] = {}
    for each in loads:
        shape = (len(each.input_edges), len(each.output_edges))
        if len(each.cells) != shape[0] * shape[1]:
            continue
        cells = np.array(each.cells).reshape(shape)
        inputs, outputs = cells.sum(axis=1) @ each.input_edges, cells.sum(axis=0) @ each.output_edges
        sums[each.service] = sums.get(each.service, np.zeros(3)) + np.array([cells.sum(), inputs, outputs])
    return {
        name: (found[1] / found[0], found[2] / found[0]) for name, found in sums.items() if found[0] > 0.0
    }


def _samples(
    seen: list[LiveSample],
    replicas: Mapping[str, Replica],
    services: Mapping[str, Service],
    questions: Mapping[str, CapacityQuestion],
    sizes: Sizes,
) -> list[Samples]:
    """Live samples by deployment, with the mean sizes of the service's requests: they say how often a step carries a prompt.

    Of a service whose load nobody measured yet, they count as steps without prompts at the context that was seen. Of a variant
    that the formula has no figures for, nothing can be learned.
    """
    by: dict[Deployment, list[tuple[float, float, float, float]]] = {}
    for sample in seen:
        replica = replicas.get(sample.replica)
        service = services.get(replica.service) if replica is not None else None
        if replica is None or service is None or not service.objectives:
            continue
        if replica.revision not in (
            "",
            service.revision,
        ):  # of another image, maybe, in the middle of a change
            continue
        promise = service.objectives[0].key
        key = Beliefs.capacity_key(service.model.name, replica.variant.key, promise, service.image)
        question = questions.get(key)
        if question is not None and computable(question):
            inputs, outputs = sizes.get(service.name, (sample.context_tokens, math.inf))
            row = (sample.batch, inputs, outputs, sample.seconds)
            by.setdefault(deployment_of(question), []).append(row)
    found = []
    for deployment, rows in by.items():
        batch, inputs, outputs, seconds = np.array(rows, dtype=np.float64).T
        found.append(Samples(deployment, batch, inputs, outputs, seconds, whole=True))
    return found


def _moved(before: CapacityBelief | None, now: CapacityBelief) -> bool:
    """Whether a belief says something else than the one that was told."""
    if before is None:
        return True
    same = msgspec.structs.replace(
        now, grid=before.grid, concurrency=before.concurrency, error=before.error, steps=before.steps
    )
    if same != before or len(now.grid) != len(before.grid) or abs(now.error - before.error) > MOVED:
        return True
    return any(abs(a - b) > MOVED * max(a, b) for a, b in zip(now.grid, before.grid, strict=True))
