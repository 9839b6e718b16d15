"""Engines and releases as images name them."""

import pytest

from placement.profiles.engines import engine_of


@pytest.mark.parametrize(
    ("image", "want"),
    [
        pytest.param("vllm/vllm-openai:v0.9.1", ("vllm", "v0.9.1"), id="vLLM with its tag"),
        pytest.param("registry.example:5000/mirror/vllm-openai", ("vllm", ""), id="a registry's port is no tag"),
        pytest.param("lmsysorg/sglang:v0.4.6-cu124", ("sglang", "v0.4.6-cu124"), id="SGLang"),
        pytest.param("nvcr.io/nvidia/tritonserver:25.04-trtllm", ("trtllm", "25.04-trtllm"), id="TensorRT-LLM in Triton"),
        pytest.param("vllm/vllm-openai:v1@sha256:" + "0" * 64, ("vllm", "v1"), id="tag and digest"),
        pytest.param("vllm/vllm-openai@sha256:" + "0" * 64, ("vllm", ""), id="a digest alone"),
        pytest.param("plimsoll/engine:0.1.0", ("", "0.1.0"), id="an engine nobody measured"),
        pytest.param("", ("", ""), id="the usual one"),
    ],
)  # fmt: skip
def test_an_image_tells_engine_and_release(image, want):
    assert engine_of(image) == want
