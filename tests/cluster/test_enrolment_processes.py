"""`plimsoll operator` and `plimsoll agent` as processes, joined by nothing but a token and a file of roots."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from kubernetes.aio import client

from console.controlplane import ControlPlane
from controller.store.kube import Access
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.clock import WallClock
from simulator.fleet.enrolment import AgentAccount, AgentPods
from tests.console.processes import Process, free_port, wait_for
from tests.hub.support import run

PATIENCE_SECONDS = 30.0


def page(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - our own page
        return str(answer.read().decode())


def eventually(line: str, url: str) -> None:
    wait_for(line, lambda: line in page(url), PATIENCE_SECONDS, lambda: page(url))


def place(plane: ControlPlane, namespace: str, node: str, folder: Path) -> Path:
    """A node, its agent's pod, and the token in its file."""
    found: list[Path] = []

    async def scenario() -> None:
        access = await Access.from_kubeconfig(plane.kubeconfig)
        await client.CoreV1Api(access.client).create_node({"metadata": {"name": node}})  # type: ignore[arg-type]
        pods = AgentPods(access.client, AgentAccount(namespace=namespace), folder, WallClock())
        await pods.settle()
        await pods.place(node)
        found.append(pods.token_file(node))
        await access.close()

    run(scenario, PATIENCE_SECONDS)
    return found[0]


@pytest.mark.slow  # two processes start
def test_an_agent_joins_with_its_token_alone(control_plane: ControlPlane, namespace: str, tmp_path: Path):
    node = f"{namespace}-node"
    roots = tmp_path / "roots.pem"
    authority = Authority.create(WallClock())
    authority.write(tmp_path / "ca")
    roots.write_bytes(authority.trusted_pem)
    token = place(control_plane, namespace, node, tmp_path / "tokens")
    port = free_port()
    operator = Process(
        "operator",
        [
            "--port", "0", "--health-port", "0", "--ledger", str(tmp_path / "ledger.db"),
            "--ca-dir", str(tmp_path / "ca"), "--enrol-listen", f"127.0.0.1:{port}",
            "--agent-account", f"{namespace}/plimsoll-agent", "--kubeconfig", str(control_plane.kubeconfig),
        ],
        tmp_path,
    )  # fmt: skip
    agent = None
    try:
        ready = operator.until_ready()
        assert ready["enrolment"] == f"127.0.0.1:{port}"
        health = ready["health"].removesuffix("/metrics")
        agent = Process(
            "agent",
            [
                "--node", node, "--hub", ready["endpoint"], "--driver", "simulated",
                "--enrol", ready["enrolment"], "--token-file", str(token), "--ca-file", str(roots),
                "--identity-dir", str(tmp_path / "identity"),
            ],
            tmp_path,
        )  # fmt: skip
        agent.until_ready()
        eventually('plimsoll_enrolments_total{outcome="signed"} 1.0', health)
        eventually("plimsoll_hub_sessions 1.0", health)
        assert Credentials.read(tmp_path / "identity").identity == Identity(Role.NODE, node)
        secret = token.read_text().rpartition(".")[2]
        assert secret not in operator.told()
        assert secret not in agent.told()
        agent.ask_to_end()
        assert agent.ended() == 0
        operator.ask_to_end()
        assert operator.ended() == 0
    finally:
        for process in (agent, operator):
            if process is not None:
                process.kill()
        control_plane.kubectl("delete", "node", node, "--ignore-not-found")
