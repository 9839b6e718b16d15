"""Shapes of models by name: every figure of the catalogue, what a manifest changes, and what it must give."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.serving import Model
from cluster.training import TrainingShape
from placement.models import SHAPES, model_spec, training_shape

WHOLE = {"parameters": 10**9, "layers": 8, "hidden_size": 512, "kv_bytes_per_token": 4_096}


def test_a_catalogued_model_has_all_its_figures() -> None:
    assert model_spec("llama-3-8b", {}) == Model(
        name="llama-3-8b", parameters=8.03e9, layers=32, hidden_size=4096, heads=32, kv_heads=8, kv_bytes_per_token=131_072,
        weight_bytes=16_060_000_000, max_context_tokens=8_192, fingerprint="llama-3-8b:16060000000:131072",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [("llama-2-7b", 524_288), ("llama-3-8b", 131_072), ("llama-2-70b", 327_680), ("llama-3.1-70b", 327_680), ("qwen2.5-14b", 196_608)],
)  # fmt: skip
def test_kv_bytes_a_token_are_those_published(name: str, kv_bytes: int) -> None:
    assert model_spec(name, {}).kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize("name", SHAPES)
def test_every_catalogued_model_holds_together(name: str) -> None:
    model, shape = model_spec(name, {}), SHAPES[name]
    assert model.name == name
    assert model.weight_bytes == int(2 * shape.parameters)
    assert shape.heads % shape.kv_heads == 0
    assert shape.head_dim * shape.heads == pytest.approx(shape.hidden_size, rel=0.3)
    dense = 12 * shape.layers * shape.hidden_size**2
    assert 0.5 < shape.parameters / dense < 1.7
    trained = training_shape(name, {})
    assert trained.sequence_length == min(shape.max_context_tokens, 4_096)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        pytest.param({"weight_bytes": 8 * 10**9}, {"weight_bytes": 8 * 10**9, "fingerprint": "llama-3-8b:8000000000:131072"}, id="quantised weights"),
        pytest.param({"max_context_tokens": 999}, {"max_context_tokens": 999}, id="a shorter context"),
        pytest.param({"parameters": 10**9}, {"parameters": 1e9, "weight_bytes": 2 * 10**9, "fingerprint": "llama-3-8b:2000000000:131072"}, id="other parameters, and weights with them"),
        pytest.param({"head_dim": 64}, {"kv_bytes_per_token": 65_536, "fingerprint": "llama-3-8b:16060000000:65536"}, id="narrower heads"),
        pytest.param({"kv_heads": 4, "head_dim": 128}, {"kv_heads": 4, "kv_bytes_per_token": 65_536, "fingerprint": "llama-3-8b:16060000000:65536"}, id="fewer heads of keys and values"),
        pytest.param({"head_dim": 64, "kv_bytes_per_token": 7}, {"kv_bytes_per_token": 7, "fingerprint": "llama-3-8b:16060000000:7"}, id="bytes of KV that are given win"),
    ],
)  # fmt: skip
def test_what_a_manifest_gives_takes_precedence(given: dict[str, Any], changed: dict[str, Any]) -> None:
    known = model_spec("llama-3-8b", {})
    fields = {f: getattr(known, f) for f in Model.__struct_fields__}
    assert model_spec("llama-3-8b", given) == Model(**{**fields, **changed})


def test_a_new_model_needs_its_shape_and_no_more() -> None:
    assert model_spec("mine", WHOLE) == Model(
        name="mine", parameters=1e9, layers=8, hidden_size=512, kv_bytes_per_token=4_096, weight_bytes=2 * 10**9,
        fingerprint="mine:2000000000:4096",
    )  # fmt: skip
    heads = {"parameters": 1, "layers": 2, "hidden_size": 3, "kv_heads": 4, "head_dim": 5}
    assert model_spec("mine", heads).kv_bytes_per_token == 4 * 2 * 4 * 5
    assert isinstance(model_spec("mine", WHOLE).parameters, float)


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_a_new_model_without_a_part_of_its_shape_says_which(missing: str) -> None:
    given = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(
        KeyError,
        match=rf"'mine' is not in the shipped catalogue \(gpt-3-1.3b, .*\) and {missing} is not given",
    ):
        model_spec("mine", given)


def test_heads_alone_do_not_give_bytes_of_kv() -> None:
    with pytest.raises(KeyError, match="kv_bytes_per_token is not given"):
        model_spec("mine", {"parameters": 1, "layers": 2, "hidden_size": 3, "head_dim": 5})


def test_a_misspelt_name_gets_its_neighbour() -> None:
    with pytest.raises(KeyError, match=r"parameters is not given; did you mean 'llama-3-8b', or give it"):
        model_spec("llama-3-8c", {})
    with pytest.raises(KeyError) as raised:
        model_spec("zzz", {})
    assert raised.value.args[0].endswith("and parameters is not given; give it")


def test_a_model_as_training_sees_it() -> None:
    assert training_shape("gpt-3-1.3b", {}) == TrainingShape(
        layers=24, hidden_size=2048, sequence_length=2_048, vocabulary=51_200
    )
    assert training_shape("llama-3.1-8b", {}).sequence_length == 4_096, (
        "a long context is not trained at full length"
    )
    assert training_shape("gpt-3-1.3b", {"sequence_length": 77}).sequence_length == 77
    new = {"layers": 2, "hidden_size": 8, "sequence_length": 16}
    assert training_shape("mine", new) == TrainingShape(layers=2, hidden_size=8, sequence_length=16)


@pytest.mark.parametrize("missing", ["layers", "hidden_size", "sequence_length"])
def test_a_new_model_to_train_without_a_part_of_its_shape_says_which(missing: str) -> None:
    given = {name: 8 for name in ("layers", "hidden_size", "sequence_length") if name != missing}
    with pytest.raises(
        KeyError, match=f"'mine' is not in the shipped catalogue .* and {missing} is not given"
    ):
        training_shape("mine", given)
