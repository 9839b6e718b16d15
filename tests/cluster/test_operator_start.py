"""`plimsoll operator --store kube` on a server that does not have our kinds yet, or is not there yet."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from console.controlplane import ControlPlane
from controller.resources.crds import CRD, definitions, install
from controller.store.errors import NotFound
from controller.store.kube import KubeStore
from runtime.authority import Authority
from runtime.clock import WallClock
from tests.console.processes import Process, free_port, wait_for

PATIENCE_SECONDS = 60.0


def remove(plane: ControlPlane) -> None:
    async def play() -> None:
        store = await KubeStore.connect(plane.kubeconfig)
        for each in definitions():
            try:
                await store.delete(CRD, each["metadata"]["name"])
            except NotFound:
                continue
        await store.close()

    asyncio.run(play())


def put_back(plane: ControlPlane) -> None:
    async def play() -> None:
        store = await KubeStore.connect(plane.kubeconfig)
        await install(store)
        await store.close()

    asyncio.run(play())


def asked(port: int, page: str) -> tuple[int, str]:
    """Status and text of a health page; (0, "") while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.fixture
def _mended(control_plane: ControlPlane) -> Iterator[None]:
    yield
    put_back(control_plane)


@pytest.mark.slow  # a process starts, and waits under its back-off
@pytest.mark.usefixtures("_mended")
def test_definitions_that_are_missing_are_waited_for(control_plane: ControlPlane, tmp_path: Path) -> None:
    remove(control_plane)
    Authority.create(WallClock()).write(tmp_path / "ca")
    port = free_port()
    context = yaml.safe_load(control_plane.kubeconfig.read_text())["current-context"]
    operator = Process(
        "operator",
        [
            "--store", "kube", "--kubeconfig", str(control_plane.kubeconfig), "--context", context,
            "--port", "0", "--health-port", str(port), "--ledger", str(tmp_path / "ledger.db"),
            "--ca-dir", str(tmp_path / "ca"),
        ],
        tmp_path,
    )  # fmt: skip
    try:
        wait_for(
            "failed: kinds",
            lambda: "failed: kinds" in asked(port, "readyz")[1],
            PATIENCE_SECONDS,
            operator.told,
        )
        unready, why = asked(port, "readyz")
        assert unready == 503
        assert "ModelService, TrainingJob" in why
        assert "kubectl apply --server-side -f helm/plimsoll/files/crds" in why
        assert asked(port, "healthz")[0] == 200, "it lives: a restart would not help"
        put_back(control_plane)
        operator.until_ready()
        operator.ask_to_end()
        assert operator.ended() == 0
    finally:
        operator.kill()
