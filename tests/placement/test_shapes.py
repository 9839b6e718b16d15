"""Shapes by the names that checkpoints carry."""

import pytest

from placement.profiles.shapes import figures_of, known_shapes


@pytest.mark.parametrize(
    ("name", "parameters", "layers", "experts"),
    [
        pytest.param("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, 32, 0, id="owner and suffix"),
        pytest.param("meta-llama/Meta-Llama-3.1-70B", 70.6e9, 80, 0, id="an owner's name twice"),
        pytest.param("nvidia/Qwen3-32B-NVFP4", 32.8e9, 64, 0, id="quantised"),
        pytest.param(
            "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 70.6e9, 80, 0, id="an alias with three suffixes"
        ),
        pytest.param("openai/gpt-oss-120b", 116.8e9, 36, 128, id="a mixture"),
        pytest.param("Qwen/Qwen3-235B-A22B-Instruct-2507", 235.1e9, 94, 128, id="dated"),
        pytest.param("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7e9, 32, 8, id="with a version"),
    ],
)
def test_a_checkpoint_finds_its_shape(name, parameters, layers, experts):
    found = figures_of(name)
    assert not found.guessed
    assert (found.figures.parameters, found.figures.layers, found.figures.experts) == (
        parameters,
        layers,
        experts,
    )
    assert found.figures.name == name


@pytest.mark.parametrize(
    ("name", "parameters", "active"),
    [
        pytest.param("acme/Novel-65B-Chat", 65e9, 0.0, id="dense"),
        pytest.param("acme/novel-100b-a10b", 100e9, 10e9, id="a mixture that tells its active part"),
        pytest.param("acme/novel-8x13b", 104e9, None, id="a mixture by its experts"),
    ],
)
def test_an_unknown_name_is_guessed_by_its_size_and_says_so(name, parameters, active):
    found = figures_of(name)
    assert found.guessed
    assert found.figures.parameters == parameters
    if active is not None:
        assert found.figures.active_parameters == active
    assert found.figures.expert_parameters < parameters


def test_a_name_without_a_size_is_refused_with_what_to_do():
    for name in ("acme/mystery", "acme/0B", f"acme/{'9' * 400}B"):
        with pytest.raises(KeyError, match=r"tells no size .* add a row"):
            figures_of(name)


@pytest.mark.parametrize("name", sorted(known_shapes()))
def test_every_shipped_shape_holds_together(name):
    shape = known_shapes()[name]
    assert 0 <= shape.experts_per_token <= shape.experts
    assert 0 <= shape.expert_parameters < shape.parameters
    assert bool(shape.experts) == bool(shape.active_parameters) == bool(shape.expert_parameters)
    dense = shape.parameters - shape.expert_parameters
    if shape.experts:
        per_token = dense + shape.expert_parameters * shape.experts_per_token / shape.experts
        assert per_token == pytest.approx(shape.active_parameters, rel=0.4)
    else:
        assert 0.3 < dense / (12 * shape.layers * shape.width**2) < 2.6
    assert 0.0 <= shape.window_share < 1.0
    assert shape.kv_bytes_per_token > 0
