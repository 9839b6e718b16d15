"""Shapes of well-known models, by name, so that a manifest need not spell them out.

Figures are those of the published configurations (layers, width, heads, vocabulary); weight bytes are
two per parameter (bf16), KV bytes per token 2 x layers x kv_heads x head_dim x 2 (keys and values, bf16).
Llama-2-7B 524,288, Llama-3-8B 131,072 and 70B 327,680 bytes per token agree with research:
gpu-selection §2.7.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.serving import Model
from cluster.training import TrainingShape


class Shape(NamedTuple):
    """Published configuration of a model."""

    parameters: float
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_context_tokens: int


SHAPES: dict[str, Shape] = {
    "llama-2-7b": Shape(6.74e9, 32, 4096, 32, 32, 128, 32_000, 4_096),
    "llama-2-13b": Shape(13.0e9, 40, 5120, 40, 40, 128, 32_000, 4_096),
    "llama-2-70b": Shape(69.0e9, 80, 8192, 64, 8, 128, 32_000, 4_096),
    "llama-3-8b": Shape(8.03e9, 32, 4096, 32, 8, 128, 128_256, 8_192),
    "llama-3.2-3b": Shape(3.21e9, 28, 3072, 24, 8, 128, 128_256, 131_072),
    "llama-3.1-8b": Shape(8.03e9, 32, 4096, 32, 8, 128, 128_256, 131_072),
    "llama-3.1-70b": Shape(70.6e9, 80, 8192, 64, 8, 128, 128_256, 131_072),
    "mistral-7b": Shape(7.24e9, 32, 4096, 32, 8, 128, 32_000, 32_768),
    "qwen2.5-14b": Shape(14.8e9, 48, 5120, 40, 8, 128, 152_064, 131_072),
    "qwen2.5-32b": Shape(32.8e9, 64, 5120, 40, 8, 128, 152_064, 131_072),
    "gpt-3-6.7b": Shape(6.7e9, 32, 4096, 32, 32, 128, 51_200, 2_048),
    "gpt-3-1.3b": Shape(1.3e9, 24, 2048, 16, 16, 128, 51_200, 2_048),
}
"""The shipped catalogue."""

_NEEDED = ("parameters", "layers", "hidden_size", "kv_bytes_per_token")


def _unknown(name: str, missing: str) -> KeyError:
    near = difflib.get_close_matches(name, SHAPES, n=1)
    hint = f"did you mean {near[0]!r}, or " if near else ""
    return KeyError(
        f"{name!r} is not in the shipped catalogue ({', '.join(sorted(SHAPES))}) and {missing} is not given; {hint}give it"
    )


def model_spec(name: str, given: Mapping[str, Any]) -> Model:
    """A served model by name, with what the manifest gives taking precedence.

    Raises KeyError with a sentence when the name is unknown and the shape given is incomplete.
    """
    shape = SHAPES.get(name)
    known: dict[str, Any] = {}
    if shape is not None:
        known = {
            "parameters": shape.parameters,
            "layers": shape.layers,
            "hidden_size": shape.hidden_size,
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "kv_bytes_per_token": 4 * shape.layers * shape.kv_heads * shape.head_dim,
            "max_context_tokens": shape.max_context_tokens,
        }
    known |= {key: value for key, value in given.items() if key not in ("weight_bytes", "head_dim")}
    head_dim = given.get("head_dim")
    if head_dim and "kv_bytes_per_token" not in given and {"layers", "kv_heads"} <= known.keys():
        known["kv_bytes_per_token"] = 4 * known["layers"] * known["kv_heads"] * head_dim
    missing = [field for field in _NEEDED if field not in known]
    if missing:
        raise _unknown(name, missing[0])
    known["parameters"] = float(known["parameters"])
    weights = int(given.get("weight_bytes", 2 * known["parameters"]))
    return Model(
        name=name,
        weight_bytes=weights,
        fingerprint=f"{name}:{weights}:{known['kv_bytes_per_token']}",
        **known,
    )


def training_shape(name: str, given: Mapping[str, Any]) -> TrainingShape:
    """A model as training sees it; errors as `model_spec`."""
    shape = SHAPES.get(name)
    known: dict[str, Any] = {}
    if shape is not None:
        known = {
            "layers": shape.layers,
            "hidden_size": shape.hidden_size,
            "sequence_length": min(shape.max_context_tokens, 4_096),
            "vocabulary": shape.vocabulary,
        }
    known |= dict(given)
    for field in ("layers", "hidden_size", "sequence_length"):
        if field not in known:
            raise _unknown(name, field)
    return TrainingShape(**known)
