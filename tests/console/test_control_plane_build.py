"""Where the control plane's binaries come from: given, found, or built once, by one builder, whole or not at all.

The compiler is a script that is called as Go is and writes scripts that say their version as the real ones do.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.controlplane import ControlPlane, binaries, building, golang
from console.controlplane.binaries import HELM, KUBE, NAMES
from console.controlplane.errors import ControlPlaneError
from console.controlplane.locks import locked
from console.controlplane.processes import state

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0

FAKE_GO = r"""#!/bin/bash
if [ "$1" = version ]; then echo "go version go${FAKE_VERSION:-1.26.8} linux/amd64"; exit; fi
echo "$@" >> "$FAKE_FOLDER/calls"
env | grep -E '^(GO|CGO)' | sort > "$FAKE_FOLDER/environment"
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
name=${out##*/}
if [ -e "$FAKE_FOLDER/hang-$name" ]; then echo $$ > "$FAKE_FOLDER/hangs"; sleep 600; fi
if [ -e "$FAKE_FOLDER/fail-$name" ]; then
    echo "no space left on device, said of $name" >&2
    [ -e "$FAKE_FOLDER/fail-once" ] && rm "$FAKE_FOLDER/fail-$name"
    exit 1
fi
printf '#!/bin/sh\necho "Kubernetes %s"\n' "${FAKE_STAMP:-v1.36.3}" > "$out"
chmod +x "$out"
"""


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


class Workshop:
    """A machine with a Go of ours and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.install(self.bin / "go", FAKE_GO)
        self.lines: list[str] = []
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE_FOLDER": str(folder),
            binaries.CACHE: str(self.cache),
            "GOOS": "plan9",
        }

    def install(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def ensure(self, **more: str) -> dict[str, Path]:
        return building.ensure(KUBE, self.lines.append, {**self.environment, **more})

    def calls(self) -> list[str]:
        told = self.folder / "calls"
        return told.read_text().splitlines() if told.exists() else []

    def hanging(self) -> int:
        """The process of a compiler that hangs."""
        told = self.folder / "hangs"
        until(lambda: told.exists() and told.read_text().endswith("\n"), "a compiler hangs")
        return int(told.read_text())

    def left_over(self) -> list[str]:
        """What is in the cache beside the binaries and the locks."""
        kept = {"lock", KUBE.key()}
        return [
            each.name for each in (self.cache / "kube").iterdir() if each.name.rpartition(".")[2] not in kept
        ]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def set_of(folder: Path, version: str = "v1.36.3", without: tuple[str, ...] = ()) -> Path:
    """A folder of binaries that somebody else made."""
    folder.mkdir(exist_ok=True)
    for name in set(NAMES) - set(without):
        (folder / name).write_text(f'#!/bin/sh\necho "Kubernetes {version}"\n')
        (folder / name).chmod(0o755)
    return folder


# ------------------------------------------------------------------------------------------------------ building


def test_it_is_built_once_and_told_binary_by_binary(workshop: Workshop):
    paths = workshop.ensure()
    assert sorted(paths) == sorted(NAMES)
    assert {path.parent for path in paths.values()} == {workshop.cache / "kube" / KUBE.key()}
    assert f"building {', '.join(NAMES)} v1.36.3 into" in workshop.lines[0]
    assert "5 to 8 minutes on two cores and about 4 GB of cache, once" in workshop.lines[1]
    assert [line.partition(":")[0] for line in workshop.lines[2:]] == [
        f"{name} ({number} of 5)" for number, name in enumerate(NAMES, 1)
    ]
    told = len(workshop.lines)
    assert workshop.ensure() == paths
    assert len(workshop.calls()) == 5
    assert len(workshop.lines) == told
    assert workshop.left_over() == []


def test_go_is_called_so_that_it_builds_what_is_written_down_and_stamps_it(workshop: Workshop):
    workshop.ensure()
    server = workshop.calls()[1]
    assert server.startswith(
        f"build -C {ROOT / 'tools/kube'} -trimpath -tags selinux,notest,grpcnotrace -ldflags"
    )
    for where in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for value in ("gitVersion=v1.36.3", "gitMajor=1", "gitMinor=36", "gitTreeState=clean"):
            assert f"-X {where}.{value}" in server
    told = (workshop.folder / "environment").read_text().splitlines()
    assert {"CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOTOOLCHAIN=local", "GOWORK=off"} <= set(told)
    assert not [line for line in told if line.startswith(("GOOS=", "GOARCH="))]


def test_two_builders_at_once_build_once(workshop: Workshop):
    (workshop.folder / "hang-etcd").touch()
    made: list[dict[str, Path]] = []
    builders = [threading.Thread(target=lambda: made.append(workshop.ensure())) for _ in range(2)]
    for each in builders:
        each.start()
    compiler = workshop.hanging()
    until(lambda: "another process is at it; waiting for it" in workshop.lines, "the second waits")
    (workshop.folder / "hang-etcd").unlink()
    os.kill(compiler, signal.SIGKILL)
    for each in builders:
        each.join(PATIENCE_SECONDS)
    assert made[0] == made[1]
    assert len(workshop.calls()) == 6  # the one that was killed was tried again


def test_a_build_that_stumbles_once_is_tried_again(workshop: Workshop):
    (workshop.folder / "fail-kubectl").touch()
    (workshop.folder / "fail-once").touch()
    workshop.ensure()
    assert "kubectl (5 of 5): attempt 1 of 3 failed" in workshop.lines


def test_a_build_that_fails_says_what_go_said_and_leaves_nothing(workshop: Workshop):
    (workshop.folder / "fail-kube-scheduler").touch()
    with pytest.raises(ControlPlaneError) as failed:
        workshop.ensure()
    assert "kube-scheduler could not be built" in str(failed.value)
    assert "no space left on device, said of kube-scheduler" in str(failed.value)
    assert len([call for call in workshop.calls() if "cmd/kube-scheduler" in call]) == 3
    assert workshop.left_over() == []
    assert binaries.built(KUBE, workshop.environment) is None


def test_a_binary_without_its_stamp_is_refused(workshop: Workshop):
    with pytest.raises(ControlPlaneError, match=r"kube-apiserver was built and says .*v0\.0\.0-master"):
        workshop.ensure(FAKE_STAMP="v0.0.0-master+$Format")
    assert workshop.left_over() == []
    assert binaries.built(KUBE, workshop.environment) is None


def test_a_killed_builder_leaves_no_compiler_behind_and_the_next_one_builds(workshop: Workshop):
    (workshop.folder / "hang-kube-apiserver").touch()
    environment = {**os.environ, **workshop.environment}
    environment.pop(binaries.ASSETS, None)
    builder = subprocess.Popen(
        [sys.executable, "-m", "console.controlplane", "build"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    compiler = workshop.hanging()
    builder.kill()
    builder.wait(PATIENCE_SECONDS)
    until(lambda: state(compiler) in {"", "Z"}, "the compiler ended")
    (workshop.folder / "hang-kube-apiserver").unlink()
    workshop.ensure()
    until(lambda: workshop.left_over() == [], "the folder of the killed one removed")


def test_a_lock_that_is_never_given_back_is_named(tmp_path: Path):
    lines: list[str] = []
    with (
        locked(tmp_path / "lock", lines.append),
        pytest.raises(ControlPlaneError, match="End it"),
        locked(tmp_path / "lock", lines.append, patience_seconds=0.0),
    ):
        pass
    with locked(tmp_path / "lock", lines.append):
        pass


def test_the_cache_is_another_one_when_what_is_built_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    keys = {KUBE.key(), HELM.key()}
    monkeypatch.setattr(binaries, "ROOT", tmp_path)
    shutil.copytree(ROOT / "tools" / "kube", tmp_path / "tools" / "kube")
    assert KUBE.key() in keys
    for name in ("go.sum", "go.mod"):
        with (tmp_path / "tools/kube" / name).open("a") as file:
            file.write("\n")
        assert KUBE.key() not in keys
        keys.add(KUBE.key())
    (tmp_path / "tools/kube/go.sum").unlink()
    with pytest.raises(ControlPlaneError, match="Run this from one, or name a folder"):
        KUBE.key()


@pytest.mark.parametrize("module", [KUBE, HELM], ids=["kube", "helm"])
def test_a_module_of_tools_holds_no_go_of_ours_and_pins_what_it_builds(module: binaries.Module):
    assert sorted(each.name for each in module.path.iterdir()) == ["go.mod", "go.sum"]
    text = (module.path / "go.mod").read_text()
    for target in module.targets:
        assert re.search(rf"^(tool )?\s*{re.escape(target.package)}$", text, re.MULTILINE), target.package
    assert module.version in {"v1.36.3", "v4.3.1"}


# ------------------------------------------------------------------------------------------------------ finding


def test_what_is_not_built_says_what_to_type(tmp_path: Path):
    with pytest.raises(ControlPlaneError, match="Type: make control-plane"):
        binaries.find({binaries.CACHE: str(tmp_path), "PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("without", "told"),
    [
        pytest.param(
            ("kube-controller-manager", "kube-scheduler"),
            "which has no kube-controller-manager, kube-scheduler. Put them there, or unset KUBEBUILDER_ASSETS and type: ",
            id="what the usual test assets lack",
        ),
        pytest.param(("kubectl",), "which has no kubectl. Put it there, or unset", id="one is missing"),
    ],
)
def test_named_binaries_must_all_be_there(tmp_path: Path, without: tuple[str, ...], told: str):
    folder = set_of(tmp_path / "assets", without=without)
    with pytest.raises(ControlPlaneError) as refused:
        binaries.find({binaries.ASSETS: str(folder)})
    assert told in str(refused.value)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        pytest.param("v1.33.6", "is of Kubernetes 1.33; Plimsoll needs 1.34 or newer", id="too old"),
        pytest.param("none", "does not say its version", id="something else of that name"),
    ],
)
def test_named_binaries_must_be_new_enough(tmp_path: Path, version: str, told: str):
    folder = set_of(tmp_path / "assets", version)
    with pytest.raises(ControlPlaneError, match=told):
        binaries.find({binaries.ASSETS: str(folder)})


def test_what_is_named_wins_over_path_and_path_over_the_cache(workshop: Workshop):
    built = workshop.ensure()
    assert binaries.find(workshop.environment).paths == built
    on_path = {**workshop.environment, "PATH": str(set_of(workshop.folder / "path", "v1.34.4"))}
    assert binaries.find(on_path).path("etcd") == workshop.folder / "path" / "etcd"
    named = {**on_path, binaries.ASSETS: str(set_of(workshop.folder / "named", "v1.35.0"))}
    assert binaries.find(named).path("etcd") == workshop.folder / "named" / "etcd"


@pytest.mark.parametrize(
    ("version", "without"),
    [
        pytest.param("v1.36.3", ("etcd",), id="only some of them"),
        pytest.param("v1.20.2", (), id="too old"),
    ],
)
def test_what_lies_on_path_by_chance_is_not_used(workshop: Workshop, version: str, without: tuple[str, ...]):
    built = workshop.ensure()
    chance = set_of(workshop.folder / "path", version, without)
    assert binaries.find({**workshop.environment, "PATH": str(chance)}).paths == built


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        pytest.param({"PLIMSOLL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a", id="named"),
        pytest.param({"XDG_CACHE_HOME": "/b"}, "/b/plimsoll", id="the user's cache folder"),
        pytest.param({}, "~/.cache/plimsoll", id="where that is by default"),
    ],
)
def test_the_cache_is_outside_the_checkout(variables: dict[str, str], folder: str):
    assert binaries.cache_folder(variables) == Path(folder).expanduser()


def test_a_control_plane_without_binaries_is_not_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(binaries.ASSETS, str(tmp_path))
    with pytest.raises(ControlPlaneError, match="which has no etcd, kube-apiserver"):
        ControlPlane()


def test_a_test_that_needs_a_control_plane_fails_without_one_and_says_what_to_type(tmp_path: Path):
    environment = {**os.environ, binaries.CACHE: str(tmp_path)}
    environment.pop(binaries.ASSETS, None)
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "tests/cluster/test_control_plane.py",
         "-k", "versions or pinned"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    assert "Type: make control-plane" in told.stdout
    assert "1 error" in told.stdout
    assert "skipped" not in told.stdout


# ------------------------------------------------------------------------------------------------------ Go itself


def test_the_machines_go_is_used_when_it_is_new_enough(workshop: Workshop):
    assert golang.ready(workshop.environment, workshop.lines.append).command == workshop.bin / "go"
    assert workshop.lines == []


OLD_GO = "#!/bin/sh\necho go version go1.25.11 linux/amd64\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("had", "told"),
    [
        pytest.param(None, "there is none here", id="no Go at all"),
        pytest.param(OLD_GO, "the one here is 1.25", id="a Go that is too old"),
    ],
)
def test_a_go_that_compiles_is_installed_where_there_is_none(workshop: Workshop, had: str | None, told: str):
    (workshop.bin / "go").unlink()
    if had:
        workshop.install(workshop.bin / "go", had)
    variables = {**workshop.environment, "PATH": str(workshop.bin)}
    go = golang.ready(variables, workshop.lines.append)
    assert told in workshop.lines[0]
    assert go.command.is_relative_to(workshop.cache)
    assert golang.version_of(go.command) == (1, 26)
    assert golang.ready(variables, workshop.lines.append) == go
    assert len(workshop.lines) == 1
    (workshop.folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    subprocess.run(
        [go.command, "build", "-o", "nothing", "main.go"], cwd=workshop.folder, env=go.environment, check=True
    )
    subprocess.run([workshop.folder / "nothing"], check=True)
    shutil.rmtree(workshop.cache)  # all of it can be removed; nothing in it is read-only


@pytest.mark.slow
def test_helm_is_built_and_says_its_version():
    path = building.ensure(HELM)["helm"]
    told = subprocess.run(
        [path, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=True
    )
    assert told.stdout == "v4.3.1"
