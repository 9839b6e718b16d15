"""Building the binaries of a Go module of `tools/` into the cache: once, whole or not at all, and telling how far."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from console.controlplane import binaries, golang
from console.controlplane.binaries import Module, Target
from console.controlplane.errors import ControlPlaneError
from console.controlplane.locks import locked
from console.controlplane.processes import Group, tail

ATTEMPTS = 3
"""A module proxy that stumbles once must not fail a build of minutes."""
TELL_SECONDS = 20.0
"""How often a build that goes on says so."""
BUILD_SECONDS = 3600.0
"""How long one binary may take, on however slow a machine."""

Say = Callable[[str], None]


def tell(line: str) -> None:
    """A line of progress on standard output, at once."""
    print(f"-- {line}", flush=True)


def ensure(module: Module, say: Say = tell, environment: Mapping[str, str] | None = None) -> dict[str, Path]:
    """The binaries of a module, by name; built when they are not in the cache.

    Raises: ControlPlaneError when there is no Go and none can be had, or with what the compiler said.
    """
    variables = dict(os.environ if environment is None else environment)
    if paths := binaries.built(module, variables):
        return paths
    folder = binaries.built_folder(module, variables)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), say):
        if paths := binaries.built(module, variables):
            return paths
        say(f"building {', '.join(each.name for each in module.targets)} {module.version} into {folder}")
        say(f"this takes {module.cost}, once; what is there already of Go's caches is used")
        go = golang.ready(variables, say)
        for left in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        _Build(module, go, partial, say).into(folder)
    return {target.name: folder / target.name for target in module.targets}


class _Build:
    """One build of a module in a folder of its own, which is gone at the end."""

    def __init__(self, module: Module, go: golang.Go, partial: Path, say: Say) -> None:
        self._module = module
        self._go = go
        self._made = partial / "bin"
        self._partial = partial
        self._say = say
        self._began = time.monotonic()

    def into(self, folder: Path) -> None:
        """Builds everything, checks what it says of itself, and puts it at `folder` in one step."""
        # The compiler's processes end with us, however we end, and the folder with them.
        group = Group(self._partial)
        try:
            self._made.mkdir()
            for number, target in enumerate(self._module.targets, 1):
                self._one(group, target, f"{target.name} ({number} of {len(self._module.targets)})")
            self._check()
            shutil.rmtree(folder, ignore_errors=True)
            self._made.rename(folder)
        finally:
            group.close()

    def _one(self, group: Group, target: Target, what: str) -> None:
        log = self._partial / f"{target.name}.log"
        for attempt in range(1, ATTEMPTS + 1):
            if self._attempt(group, target, what, log):
                self._say(f"{what}: built, {self._since()}")
                return
            self._say(f"{what}: attempt {attempt} of {ATTEMPTS} failed")
        raise ControlPlaneError(
            f"{target.name} could not be built from {self._module.path}. Go must reach a module proxy (GOPROXY), and "
            f"the disk must hold {self._module.cost}. The end of what Go said:\n{tail(log)}"
        )

    def _attempt(self, group: Group, target: Target, what: str, log: Path) -> bool:
        command = [str(self._go.command), "build", "-C", str(self._module.path), *self._module.flags()]
        command += ["-o", str(self._made / target.name), target.package]
        process = group.spawn(command, log, self._go.environment)
        deadline = time.monotonic() + BUILD_SECONDS
        while time.monotonic() < deadline:
            try:
                return process.wait(TELL_SECONDS) == 0
            except subprocess.TimeoutExpired:
                self._say(f"{what}: {self._since()}")
        process.kill()
        process.wait()
        return False

    def _check(self) -> None:
        """Raises: ControlPlaneError when a binary does not say the version that it was stamped with."""
        for target in self._module.targets:
            words = self._module.asked.get(target.name)
            said = (
                binaries.told_by([str(self._made / target.name), *words]) if words else self._module.version
            )
            if self._module.version not in said:
                raise ControlPlaneError(
                    f"{target.name} was built and says {said[:200]!r} instead of {self._module.version}: its package "
                    f"no longer keeps its version where console/controlplane/binaries.py writes it."
                )

    def _since(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
