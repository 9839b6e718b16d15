"""The roles as real processes on loopback in real time: a manifest becomes a served, explained model."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

from controller.resources.kinds import MODEL_SERVICE
from controller.store.remote import RemoteStore
from gateway.client import GatewayClient, Request, Result
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from tests.console.processes import ROOT, Bench, bench, free_port, wait_for

MINIMAL = str(ROOT / "examples" / "minimal")
NODES = 6
MACHINES = ("--nodes", str(NODES), "--gpu", "l4", "--gpus", "4", "--start-seconds", "2")
REQUESTS = 12


def served(made: Bench, operator: str, seconds: float) -> dict[str, Any]:
    """The service once it is served, as an admin's own connection sees it."""

    async def play() -> dict[str, Any]:
        admin = Keyring(made.pki, WallClock()).get(Identity(Role.ADMIN, "admin"))
        store = await RemoteStore.connect(operator, admin)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await store.get(MODEL_SERVICE, "chat", "default")
                    if found.get("status", {}).get("phase") == "Serving":
                        return found
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise AssertionError(f"not served in {seconds:g} s\n{made.logs()}") from error
        finally:
            await store.close()

    return asyncio.run(play())


def sent(made: Bench, gateway: str) -> list[Result]:
    """Requests through the gateway, in real time, once it has heard of the service."""

    async def play() -> list[Result]:
        client = Keyring(made.pki, WallClock()).get(Identity(Role.CLIENT, "client"))
        stream = await GatewayClient.connect(gateway, "gateway-0", client)
        number = 0
        try:
            async with asyncio.timeout(30):
                while True:
                    asked = [Request(number + i, "default/chat", 100, 10) for i in range(1, REQUESTS + 1)]
                    number += REQUESTS
                    results = await stream.generate(asked, 25.0)
                    if {each.code for each in results} != {"RejectNoService"}:
                        return results
                    await asyncio.sleep(0.1)
        finally:
            await stream.close()

    return asyncio.run(play())


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own, on loopback
        return str(answer.read().decode())


def test_operator_fleet_and_gateway_serve_a_manifest_in_real_time(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        port = str(free_port())
        endpoint = f"127.0.0.1:{port}"
        # All at once: who comes before the operator waits for it.
        gateway = made.start("gateway", "--operator", endpoint, "--port", "0")
        fleet = made.start("fleet", "--operator", endpoint, *MACHINES)
        agent = made.start(
            "agent", "--node", "lone", "--hub", endpoint, "--driver", "simulated", "--gpus", "2"
        )
        operator = made.start("operator", "--ledger", str(made.ledger), "--port", port, "--health-port", "0")
        for each in made.processes:
            each.until_ready()
        assert operator.ready["endpoint"] == endpoint
        assert fleet.ready["nodes"] == NODES

        applied = made.ask("apply", "-f", MINIMAL, "--operator", endpoint, "--pki", str(made.pki))
        assert [each["result"] for each in applied["applied"]] == ["created", "created"]

        # Held at the gateway until the first replica is ready, wherever its start stands.
        results = sent(made, gateway.ready["endpoint"])
        assert [each.outcome for each in results] == ["served"] * REQUESTS, made.logs()
        assert {each.output_tokens for each in results} == {10}
        assert all(0.0 < each.first_token_seconds < each.finished_seconds for each in results)
        service = served(made, endpoint, 10.0)
        assert service["status"]["ready"] >= 1
        assert service["status"]["costPerHour"] > 0.0

        why = made.ask("explain", "msvc/default/chat", "--ledger", str(made.ledger))
        codes = {each["latest"]["row"]["code"]: each["latest"]["row"] for each in why["history"]}
        assert codes["MixChosen"]["need"] > 0.0
        assert codes["MixChosen"]["have"] >= codes["MixChosen"]["need"]
        assert "$" in codes["MixChosen"]["sentence"]

        health = operator.ready["health"]
        assert page(f"{health}/healthz").startswith("ok")
        assert page(f"{health}/readyz").startswith("ok")
        sessions = f"plimsoll_hub_sessions {float(NODES + 1)}"
        wait_for("all agents' streams", lambda: sessions in page(f"{health}/metrics"), 5.0, made.logs)
        assert 'plimsoll_service_ready_replicas{service="default/chat"}' in page(f"{health}/metrics")

        agent.ask_to_end()
        assert agent.ended() == 0
        wait_for("its goodbye", lambda: "node=lone change=left" in operator.told(), 5.0, made.logs)
        for each in made.processes:
            each.ask_to_end()
        assert [each.ended() for each in made.processes] == [0, 0, 0, 0], made.logs()
        assert [each.leftovers() for each in made.processes] == [[], [], [], []]
        assert "gave the lease of epoch 1 back" in operator.told()
        assert "Traceback" not in made.logs()
        again = made.ask("explain", "msvc/default/chat", "--ledger", str(made.ledger))
        assert len(again["history"]) >= len(why["history"]), "what was decided is written down at the end"
