"""What a simulated machine may be made of: figures that cannot be are refused by name."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from simulator.physics.catalogue import GPU_SPECS, L4
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec, check_positive, check_rising
from tests.physics.worlds import LLAMA_7B

NO_NUMBERS = [0, -1, math.inf, math.nan]
GPU_FIGURES = [
    "memory_bytes", "bandwidth_bytes_per_second", "flops_per_second", "idle_watts", "min_watts", "min_mhz", "step_mhz",
    "link_bytes_per_second", "pcie_bytes_per_second",
]  # fmt: skip


def changed(spec: msgspec.Struct, **fields: Any) -> Any:
    return type(spec)(**{**msgspec.structs.asdict(spec), **fields})


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
@pytest.mark.parametrize("name", GPU_FIGURES)
def test_a_gpu_figure_must_be_a_positive_number(name: str, value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} of GPU L4 is {value}; it must be a positive finite number$"
    ):
        changed(L4, **{name: value})


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"idle_watts": 73}, "idle_watts 73, tdp_watts 72, max_watts 72"),
        ({"max_watts": 71}, "idle_watts 16, tdp_watts 72, max_watts 71"),
        ({"min_watts": 73}, "min_watts 73, tdp_watts 72"),
        ({"min_mhz": 800}, "min_mhz 800, base_mhz 795, max_mhz 2040"),
        ({"base_mhz": 2041}, "min_mhz 210, base_mhz 2041, max_mhz 2040"),
    ],
    ids=["idle above the board's power", "a greatest cap below it", "a least cap above it", "clocks upside down", "a base clock above the greatest"],
)  # fmt: skip
def test_a_gpus_ranges_must_rise(change: dict[str, int], listed: str) -> None:
    with pytest.raises(ValueError, match=rf"^GPU L4 has {listed}; these must rise from first to last$"):
        changed(L4, **change)


def test_equal_ends_of_a_range_are_allowed() -> None:
    assert changed(L4, min_watts=72, base_mhz=2040, min_mhz=2040).min_mhz == 2040


@pytest.mark.parametrize("name", ["parameters", "weight_bytes", "layers", "hidden", "kv_bytes_per_token"])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_a_models_figure_must_be_a_positive_number(name: str, value: float) -> None:
    with pytest.raises(
        ValueError,
        match=rf"^{name} of model {LLAMA_7B.name} is {value}; it must be a positive finite number$",
    ):
        changed(LLAMA_7B, **{name: value})


@pytest.mark.parametrize(
    "name", ["tensor_parallel", "max_num_seqs", "chunk_tokens", "block_tokens", "memory_fraction"]
)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_an_engines_limit_must_be_a_positive_number(name: str, value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} of engine is {value}; it must be a positive finite number$"
    ):
        EngineSpec(**{name: value})


def test_an_engine_cannot_have_more_memory_than_there_is() -> None:
    assert EngineSpec(memory_fraction=1.0).memory_fraction == 1.0
    with pytest.raises(ValueError, match=r"^memory_fraction of the engine is 1.01; it must be at most 1$"):
        EngineSpec(memory_fraction=1.01)


def test_a_full_batch_leaves_room_for_a_prompt() -> None:
    assert EngineSpec(max_num_seqs=255, chunk_tokens=256).chunk_tokens == 256
    with pytest.raises(
        ValueError, match=r"^chunk_tokens 256 of the engine must exceed max_num_seqs 256: raise the one or"
    ):
        EngineSpec(max_num_seqs=256, chunk_tokens=256)


@pytest.mark.parametrize(
    ("rate", "count"), [(0.0, 1), (-1.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 0), (1.0, -1)], ids=str
)
def test_ports_must_have_a_rate_and_a_number(rate: float, count: int) -> None:
    with pytest.raises(ValueError, match=rf"^{count} roce ports of {rate} bit/s: both must be positive$"):
        NicSpec(NicClass.ROCE, rate, count)
    assert NicSpec(NicClass.ROCE, 1e-9).count == 1


def test_the_first_figure_that_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"^layers of a thing is 0"):
        check_positive("a thing", _bare(width=1, layers=0, hidden=-1), ("width", "layers", "hidden"))
    check_positive("a thing", _bare(layers=0, hidden=1), ("hidden",))
    check_rising("a thing", _bare(layers=1), ("layers",))


def _bare(**fields: int) -> msgspec.Struct:
    return msgspec.defstruct("Bare", list(fields), namespace={})(**fields)


@pytest.mark.parametrize("product", GPU_SPECS)
def test_every_product_of_the_catalogue_is_sound(product: str) -> None:
    spec = GPU_SPECS[product]
    assert isinstance(spec, GpuSpec)
    assert spec.product == product
    assert changed(spec) == spec
    assert isinstance(LLAMA_7B, ModelSpec)
