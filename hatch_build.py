"""Build hook: makes the package `wire/` from `proto/`, and lays the examples that `plimsoll demo` applies into wheels."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WireBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before hatch collects files: git holds no generated code, and the examples are no package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates `wire/` beside `proto/`, unchanged modules left alone; takes `examples/` into a wheel."""
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("generate_wire", root / "tools" / "generate_wire.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(
                f"{root}/tools/generate_wire.py is missing: the source tree is incomplete."
            )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.generate(root / "proto", root / "wire")
        if (
            self.target_name == "wheel" and version == "standard"
        ):  # an editable install reads them where they are
            build_data["force_include"][str(root / "examples")] = "console/examples"
