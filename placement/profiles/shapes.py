"""Shapes of models by the names that checkpoints carry, as the step-time formula wants them.

`meta-llama/Llama-3.1-8B-Instruct`, `nvidia/Qwen3-32B-NVFP4` and `openai/gpt-oss-120b` are found whatever their owner, case and
suffix. Of a name nobody knows its size is read ("34B", "30B-A3B", "8x7B") and the rest taken from the known model nearest
in size: a guess, and marked as one.
"""

from __future__ import annotations

import csv
import math
import re
from functools import cache
from importlib import resources
from typing import NamedTuple

from placement.models import SHAPES
from placement.profiles.figures import ModelFigures

CACHE_BYTES = 2.0
"""Bytes of a number in the KV cache where nobody says otherwise."""

_SUFFIX = re.compile(
    r"[-_.](instruct|chat|it|hf|base|thinking|preview|nvfp4|mxfp4|fp4|fp8|bf16|fp16|int4|int8|awq|gptq|w4a16|w8a8|kv|dynamic|v0\.\d|\d{4})(?=$|[-_.])"
)
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?:-a(\d+(?:\.\d+)?)b)?(?![a-z0-9])")


class Known(NamedTuple):
    """Figures of a model, `guessed` when only its size was known, and the precision of its published weights."""

    figures: ModelFigures
    guessed: bool
    precision: str = "bf16"


def known_shapes() -> dict[str, ModelFigures]:
    """Every shape of the shipped tables, by name and alias in lower case."""
    return dict(_table())


def figures_of(name: str) -> Known:
    """Figures of a model by a checkpoint's name. KeyError with a sentence when it is unknown and names no size."""
    plain = name.strip().lower().rsplit("/", 1)[-1]
    shapes = _table()
    while plain not in shapes:
        shorter = _SUFFIX.sub("", plain)
        if shorter in shapes or shorter == plain:
            plain = shorter
            break
        plain = shorter
    for each in (plain, f"meta-{plain}", plain.removeprefix("meta-")):
        if each in shapes:
            own = _precisions().get(shapes[each].name, "bf16")
            return Known(_renamed(shapes[each], name), guessed=False, precision=own)
    size = _SIZE.search(plain)
    if size is None or not 0.0 < _parameters(size) < math.inf:
        raise KeyError(
            f"model {name!r} is not among the shipped shapes and its name tells no size (like 34B or 30B-A3B); "
            "add a row of it to placement/data/models.csv"
        )
    return Known(_guess(name, size), guessed=True)


def _guess(name: str, size: re.Match[str]) -> ModelFigures:
    experts, active, parameters = size.group(1), size.group(3), _parameters(size)
    mixed = bool(experts or active)
    alike = [each for each in _table().values() if bool(each.experts) == mixed]
    near = min(alike, key=lambda each: (abs(math.log(each.parameters / parameters)), each.name))
    scale = parameters / near.parameters
    fields = {field: getattr(near, field) for field in ModelFigures.__struct_fields__}
    fields |= {"name": name, "parameters": parameters, "expert_parameters": near.expert_parameters * scale}
    if mixed:
        fields["active_parameters"] = float(active) * 1e9 if active else near.active_parameters * scale
    return ModelFigures(**fields)


def _parameters(size: re.Match[str]) -> float:
    """All parameters that a name tells: 8x7B are 56 billion, which counts what experts share too often."""
    return float(size.group(1) or 1.0) * float(size.group(2)) * 1e9


def _renamed(figures: ModelFigures, name: str) -> ModelFigures:
    fields = {field: getattr(figures, field) for field in ModelFigures.__struct_fields__}
    return ModelFigures(**{**fields, "name": name})


@cache
def _table() -> dict[str, ModelFigures]:
    found: dict[str, ModelFigures] = {}
    for name, shape in SHAPES.items():
        found[name] = ModelFigures(
            name=name,
            parameters=shape.parameters,
            kv_bytes_per_token=2.0 * CACHE_BYTES * shape.layers * shape.kv_heads * shape.head_dim,
            width=shape.hidden_size,
            layers=shape.layers,
            attention_width=shape.heads * shape.head_dim,
        )
    for row in _rows():
        figures = _row(row) if row["parameters"] else found[row["name"]]
        for each in (row["name"], *filter(None, row["aliases"].split("|"))):
            found[each] = figures
    return found


@cache
def _precisions() -> dict[str, str]:
    return {row["name"]: row["precision"] for row in _rows() if row["precision"]}


def _rows() -> list[dict[str, str]]:
    text = resources.files("placement").joinpath("data", "models.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if line and not line.startswith("#")))


def _row(row: dict[str, str]) -> ModelFigures:
    def number(field: str) -> float:
        return float(row[field] or 0.0)

    elements = number("kv_elements") or 2.0 * number("kv_heads") * number("head_dim")
    return ModelFigures(
        name=row["name"],
        parameters=number("parameters"),
        kv_bytes_per_token=CACHE_BYTES * number("layers") * elements,
        width=int(number("hidden_size")),
        layers=int(number("layers")),
        active_parameters=number("active_parameters"),
        experts=int(number("experts")),
        experts_per_token=int(number("experts_per_token")),
        expert_parameters=number("expert_parameters"),
        dense_precision=row["dense_precision"],
        window_tokens=int(number("window_tokens")),
        window_share=number("window_share"),
        attention_width=int(number("heads") * number("head_dim")),
    )
