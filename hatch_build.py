"""Build hook: makes the package `wire/` from `proto/` for wheels and editable installs alike."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WireBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `tools/generate_wire.py` before hatch collects files, because git does not hold generated code."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates `wire/` beside `proto/`; leaves it alone where it is newer than every contract."""
        del version, build_data
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("generate_wire", root / "tools" / "generate_wire.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(
                f"{root}/tools/generate_wire.py is missing: the source tree is incomplete."
            )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.generate(root / "proto", root / "wire")
