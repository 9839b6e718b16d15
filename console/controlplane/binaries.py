"""Where the binaries of a control plane are: given by the environment, on PATH, or in the cache that we build."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from console.controlplane.errors import ControlPlaneError

ASSETS = "KUBEBUILDER_ASSETS"
"""The variable that names a folder of binaries to use instead of ours."""
CACHE = "PLIMSOLL_CACHE"
"""The variable that names the folder of our cache."""
BUILD_LINE = "make control-plane"
OLDEST_MINOR = 34
"""Kubernetes 1.34 is the oldest that Plimsoll works with."""
ASK_SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[2]


class Target(msgspec.Struct, frozen=True):
    """One binary to build: its name, and the package it is the command of."""

    name: str
    package: str


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A Go module of `tools/` that only says what to build."""

    folder: str
    """Below `tools/`; also the name of its folder in the cache."""
    released: str
    """The module path whose version is that of the binaries."""
    targets: tuple[Target, ...]
    tags: str = ""
    stamps: tuple[str, ...] = ()
    """Linker variables; `{version}`, `{major}`, `{minor}` are filled in."""
    asked: dict[str, tuple[str, ...]] = {}
    """How binaries are asked for their version, which must be that of the module. Others say one of their own."""
    cost: str
    """What the first build costs, for people."""

    @property
    def path(self) -> Path:
        """The folder of go.mod and go.sum. Raises: ControlPlaneError where there is no checkout."""
        folder = ROOT / "tools" / self.folder
        if not (folder / "go.sum").is_file():
            raise ControlPlaneError(
                f"{folder}/go.sum is missing: what is built is written down in a checkout of Plimsoll. "
                f"Run this from one, or name a folder of binaries in {ASSETS}."
            )
        return folder

    @property
    def version(self) -> str:
        """The version that the binaries must say, such as v1.36.3. Raises: ControlPlaneError."""
        required = re.search(
            rf"^(?:require )?\s*{re.escape(self.released)} (v[0-9][\w.-]*)",
            (self.path / "go.mod").read_text(),
            re.MULTILINE,
        )
        if required is None:
            raise ControlPlaneError(
                f"{self.path}/go.mod does not require {self.released}: restore it from git."
            )
        return required[1]

    def flags(self) -> list[str]:
        """Arguments of `go build`."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        filled = (each.format(version=self.version, major=major, minor=minor) for each in self.stamps)
        stamps = " ".join(f"-X {each}" for each in filled)
        tags = ["-tags", self.tags] if self.tags else []
        return ["-trimpath", *tags, "-ldflags", f"-s -w {stamps}"]

    def key(self) -> str:
        """Changes with everything that the binaries depend on."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.path / name).read_bytes())
        digest.update("\0".join([*self.flags(), platform.system(), platform.machine()]).encode())
        digest.update("\0".join(f"{each.name} {each.package}" for each in self.targets).encode())
        return digest.hexdigest()[:16]


_BASE = "k8s.io/component-base/version"
_CLIENT = "k8s.io/client-go/pkg/version"
_STAMPED = {"gitVersion": "{version}", "gitMajor": "{major}", "gitMinor": "{minor}", "gitTreeState": "clean"}

KUBE = Module(
    folder="kube",
    released="k8s.io/kubernetes",
    targets=(
        Target("etcd", "go.etcd.io/etcd/server/v3"),
        Target("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        Target("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        Target("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        Target("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ),
    tags="selinux,notest,grpcnotrace",  # as the released binaries are built
    stamps=tuple(f"{where}.{name}={value}" for where in (_BASE, _CLIENT) for name, value in _STAMPED.items()),
    asked={
        "kube-apiserver": ("--version",),
        "kube-controller-manager": ("--version",),
        "kube-scheduler": ("--version",),
        "kubectl": ("version", "--client"),
    },
    cost="5 to 8 minutes on two cores and about 4 GB of cache",
)
HELM = Module(
    folder="helm",
    released="helm.sh/helm/v4",
    targets=(Target("helm", "helm.sh/helm/v4/cmd/helm"),),
    stamps=(
        "helm.sh/helm/v4/internal/version.version={version}",
        "helm.sh/helm/v4/internal/version.gitTreeState=clean",
    ),
    asked={"helm": ("version",)},
    cost="2 to 3 minutes on two cores and about 2 GB of cache",
)
NAMES = tuple(target.name for target in KUBE.targets)


class Binaries(msgspec.Struct, frozen=True):
    """A control plane's binaries, and where they come from, in words."""

    paths: dict[str, Path]
    origin: str

    def path(self, name: str) -> Path:
        """One of them."""
        return self.paths[name]


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where builds are kept: PLIMSOLL_CACHE, or `plimsoll` in the user's cache folder."""
    variables = os.environ if environment is None else environment
    if named := variables.get(CACHE):
        return Path(named).expanduser().absolute()
    above = variables.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(above).expanduser().absolute() / "plimsoll"


def built_folder(module: Module, environment: Mapping[str, str] | None = None) -> Path:
    """Where the binaries of a module are, or will be, in the cache."""
    return cache_folder(environment) / module.folder / module.key()


def built(module: Module, environment: Mapping[str, str] | None = None) -> dict[str, Path] | None:
    """The binaries of a module in the cache; None when it must be built first."""
    folder = built_folder(module, environment)
    paths = {target.name: folder / target.name for target in module.targets}
    return paths if all(path.is_file() for path in paths.values()) else None


def find(environment: Mapping[str, str] | None = None) -> Binaries:
    """The binaries to use: those of KUBEBUILDER_ASSETS, a whole set on PATH, or those we built.

    Raises: ControlPlaneError when there are none, with the line to type, or when those named do not do.
    """
    variables = os.environ if environment is None else environment
    if found := given(variables):
        return found
    paths = built(KUBE, variables)
    if paths is None:
        raise ControlPlaneError(
            f"The control plane is not built yet (looked in {built_folder(KUBE, variables)}). Type: {BUILD_LINE}\n"
            f"It takes {KUBE.cost}, once. Or name a folder that holds {', '.join(NAMES)} in {ASSETS}."
        )
    return Binaries(paths, f"built from tools/{KUBE.folder}")


def given(variables: Mapping[str, str]) -> Binaries | None:
    """Binaries that need no build: named by KUBEBUILDER_ASSETS, or all of them on PATH and new enough.

    Raises: ControlPlaneError when KUBEBUILDER_ASSETS names a folder that does not do.
    """
    if folder := variables.get(ASSETS):
        return _assets(Path(folder))
    on_path = {name: shutil.which(name, path=variables.get("PATH")) for name in NAMES}
    paths = {name: Path(path) for name, path in on_path.items() if path}
    if len(paths) < len(NAMES):
        return None
    version = version_of(paths["kube-apiserver"])
    if version is None or version < (1, OLDEST_MINOR):
        return None
    return Binaries(paths, "found on PATH")


def _assets(folder: Path) -> Binaries:
    paths = {name: folder / name for name in NAMES}
    missing = [name for name, path in paths.items() if not os.access(path, os.X_OK) or path.is_dir()]
    if missing:
        raise ControlPlaneError(
            f"{ASSETS} names {folder}, which has no {', '.join(missing)}. Put "
            f"{'it' if len(missing) == 1 else 'them'} there, or unset {ASSETS} and type: {BUILD_LINE}"
        )
    version = version_of(paths["kube-apiserver"])
    if version is None or version < (1, OLDEST_MINOR):
        said = (
            "does not say its version" if version is None else f"is of Kubernetes {version[0]}.{version[1]}"
        )
        raise ControlPlaneError(
            f"{paths['kube-apiserver']} {said}; Plimsoll needs 1.{OLDEST_MINOR} or newer. "
            f"Name another folder in {ASSETS}, or unset it and type: {BUILD_LINE}"
        )
    return Binaries(paths, f"named by {ASSETS}")


def version_of(api_server: Path) -> tuple[int, int] | None:
    """What `kube-apiserver --version` says, as (major, minor); None when it says nothing of the kind."""
    said = re.match(r"Kubernetes v(\d+)\.(\d+)\.", told_by([str(api_server), "--version"]))
    return (int(said[1]), int(said[2])) if said else None


def told_by(command: list[str]) -> str:
    """What a command prints when asked for its version; empty when it cannot be run or takes too long."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip()
