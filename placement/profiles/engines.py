"""Which engine a container image has, and of which release: samples of one release are not those of another."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

ENGINES: Final = (
    ("vllm", "vllm"),
    ("sglang", "sglang"),
    ("tensorrt", "trtllm"),
    ("trtllm", "trtllm"),
    ("tritonserver", "trtllm"),
)
"""What an image's path is searched for, and the name that profiles and measurements have for it."""  # fmt: skip

_DIGEST: Final = re.compile(r"@.*$")


class Engine(NamedTuple):
    """Name of the engine ("" for one that nobody measured) and its release, the image's tag ("" where it has none)."""

    name: str = ""
    release: str = ""


def engine_of(image: str) -> Engine:
    """What an image runs: `vllm/vllm-openai:v0.9.1` is vllm of release v0.9.1. A digest is no release anybody can compare."""
    path, _, tag = _DIGEST.sub("", image).rpartition(":")
    if not path or "/" in tag:  # no tag; what follows the colon was a registry's port
        path, tag = _DIGEST.sub("", image), ""
    lower = path.lower()
    return Engine(next((name for part, name in ENGINES if part in lower), ""), tag)
