"""The roofline as an estimator: folds questions (what might run where, under which promise) into beliefs.

One fold answers one question, about a millisecond; a question that was answered before costs nothing. What cannot be
answered is believed to serve nothing, with code `ProfileHole`, until a better question comes.
"""

from __future__ import annotations

import msgspec

from cluster.base import Noun
from cluster.beliefs import Beliefs, CapacityBelief
from cluster.hardware import AcceleratorClass
from cluster.serving import LoadHistogram, Model, Objective, Variant
from placement.profiles.belief import roofline_belief
from placement.profiles.grid import DEFAULT_GRID
from placement.profiles.steptime import GpuFigures


class CapacityQuestion(Noun, kw_only=True, frozen=True):
    """What one replica carries is asked for; `load` weighs its concurrency and gives the grid (None: default).

    `image` is that of the engine ("": the usual one), which says whose constants hold and whose samples count.
    """

    model: Model
    variant: Variant
    objective: Objective
    accelerator: AcceleratorClass
    load: LoadHistogram | None = None
    image: str = ""

    @property
    def key(self) -> str:
        """Key of the belief that answers it."""
        return Beliefs.capacity_key(self.model.name, self.variant.key, self.objective.key, self.image)


class RooflineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the estimator. `error` is the relative half-width of its band, planned at its low end."""

    error: float = 0.0


class RooflineState(msgspec.Struct, frozen=True, kw_only=True):
    """Questions and their answers, by key."""

    schema: int = 1
    asked: dict[str, CapacityQuestion] = {}
    beliefs: dict[str, CapacityBelief] = {}


class RooflineCapacity:
    """`Estimator[CapacityQuestion, RooflineState, dict[str, CapacityBelief]]`."""

    def __init__(self, config: RooflineConfig | None = None) -> None:
        self._config = config or RooflineConfig()

    def initial(self) -> RooflineState:
        """Nothing was asked."""
        return RooflineState()

    def fold(self, seen: CapacityQuestion, state: RooflineState) -> RooflineState:
        """Answer a question; the state itself when it was answered already."""
        if state.asked.get(seen.key) == seen:
            return state
        return msgspec.structs.replace(
            state,
            asked={**state.asked, seen.key: seen},
            beliefs={**state.beliefs, seen.key: self._answer(seen)},
        )

    def believe(self, state: RooflineState, now_seconds: float) -> dict[str, CapacityBelief]:
        """Every answer. A roofline does not age, so `as_of_seconds` is the moment of asking for it."""
        return {
            key: msgspec.structs.replace(state.beliefs[key], as_of_seconds=now_seconds)
            for key in sorted(state.beliefs)
        }

    def _answer(self, seen: CapacityQuestion) -> CapacityBelief:
        try:
            belief = roofline_belief(
                gpu_figures(seen.accelerator, seen.variant.milli),
                seen.model,
                seen.variant,
                seen.objective,
                seen.load,
            )
        except ValueError:
            edges = DEFAULT_GRID
            belief = CapacityBelief(
                model=seen.model.name,
                variant=seen.variant.key,
                input_edges=edges.input_edges,
                output_edges=edges.output_edges,
                grid=(0.0,) * edges.size,
                excluded="ProfileHole",
                need=1.0,
                unit="cells",
            )
        return msgspec.structs.replace(belief, request_class=seen.objective.key, error=self._config.error)


def gpu_figures(accelerator: AcceleratorClass, milli: int = 1_000) -> GpuFigures:
    """A product, or `milli` thousandths of one, as the step-time formula reads it: a share has its part of the memory, of
    the bandwidth and of the compute, all the time.
    """
    flops, part = accelerator.flops, milli / 1_000
    return GpuFigures(
        name=accelerator.name,
        memory_bytes=accelerator.memory_bytes * milli // 1_000,
        bandwidth_bytes_per_second=accelerator.bandwidth_bytes_per_second * part,
        flops_16bit_per_second=(flops.get("bf16") or flops.get("fp16") or 0.0) * part,
        flops_8bit_per_second=(flops.get("fp8") or flops.get("int8") or 0.0) * part,
        link_bytes_per_second=float(accelerator.link_bytes_per_second),
        fabric=accelerator.fabric,
        flops_4bit_per_second=(flops.get("fp4") or 0.0) * part,
    )
