"""Two operator processes and a gang: the leader is stopped, or robbed of its Lease, in the middle of starting it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover import late_writes, terms
from benchmarks.failover_arena import WORK, Arena, arena
from benchmarks.failover_sides import SPACE, OperatorProcess, audited
from controller.leadership import LEASE_NAME
from controller.observe import labels
from controller.resources.core import LEASE, POD
from controller.resources.kinds import TRAINING_JOB
from controller.store.interface import JsonObject
from tests.cluster.test_pods import here
from tests.controlplane import Started
from tests.scenarios.props import job

RANKS = 4
SUSPEND = '{"spec": {"suspend": true}}'
LEASE_SECONDS = {"lease_seconds": 10.0, "renew_deadline_seconds": 7.0, "retry_seconds": 1.0}
SLOW = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: slow}
webhooks:
  - name: slow.example.org
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Ignore
    timeoutSeconds: 2
    clientConfig: {url: "https://127.0.0.1:PORT/"}
    objectSelector: {matchExpressions: [{key: plimsoll.dev/job, operator: Exists}]}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
"""
"""Each pod of a gang is admitted after two seconds: nobody answers where this asks."""


@asynccontextmanager
async def slowly(made: Arena) -> AsyncIterator[None]:
    """The API server takes its time over each pod of a gang."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.to_thread(made.plane.kubectl, "apply", "-f", "-", stdin=SLOW.replace("PORT", str(port)))
    await asyncio.sleep(2.0)  # until the API server's own informer has it
    try:
        yield
    finally:
        await asyncio.to_thread(made.plane.kubectl, "delete", "validatingwebhookconfiguration", "slow")
        server.close()


async def pods_of(made: Arena, name: str) -> list[JsonObject]:
    return list((await made.store.list(POD, WORK, label_selector=f"{labels.JOB}={name}")).items)


def attempts(made: Arena, uid: str) -> list[int]:
    """Attempts of the job whose ranks have all met."""
    return made.fleet.gangs.attempts(uid)


async def cut(made: Arena, name: str, how: Callable[[], Awaitable[None]]) -> tuple[int, int, float]:
    """Do that to the leader while it makes a gang: which attempt that was, under which epoch, and when."""
    async with slowly(made):
        text = here(job(name, nodes=RANKS, on="l4", steps=100_000), WORK)
        await asyncio.to_thread(made.plane.kubectl, "apply", "-f", "-", stdin=text)
        record = await made.lease()

        async def begun() -> bool:
            return bool(await pods_of(made, name))

        await made.until("the first pod of the gang", begun)
        await how()
        pods = await pods_of(made, name)
        return attempt_of(pods[0]), record.epoch if record else 0, time.time()


def attempt_of(pod: JsonObject) -> int:
    return int(pod["metadata"]["labels"][labels.ATTEMPT])


async def succeeded(made: Arena, name: str, begun: int, epoch: int, since: float) -> None:
    """Somebody else leads, and the whole gang works in a later attempt than the one that was begun."""
    uid = (await made.store.get(TRAINING_JOB, name, WORK))["metadata"]["uid"]
    await made.until("a new leader is obeyed", lambda: made.first_accepted(epoch, since) is not None)
    await made.until("an attempt has met", lambda: attempts(made, uid))
    assert attempts(made, uid)[0] > begun, "the attempt that was cut in two never met"

    async def tidy() -> bool:
        newest = attempts(made, uid)[-1]
        found = await pods_of(made, name)
        return len(found) == RANKS and {attempt_of(pod) for pod in found} == {newest}

    await made.until("only the newest attempt is there, and whole", tidy)


def made_of(made: Arena, attempt: str) -> set[str]:
    """Pods of an attempt that the API server created, by its audit log."""
    return {
        w.name for w in made.writes() if w.verb == "create" and w.resource == "pods" and attempt in w.name
    }


def sound(made: Arena) -> None:
    gangs = made.fleet.gangs
    assert gangs.attendance.breaches() == []
    assert gangs.doubled == 0


async def _paused(made: Arena) -> None:
    leader, _ = await made.roles()

    async def stop() -> None:
        leader.signal(signal.SIGSTOP)

    await _cut(made, "bert", leader, stop)
    met = list(made.fleet.gangs.meetings)
    leader.signal(signal.SIGCONT)
    await made.until("the sleeper stands by", lambda: _standby(leader))
    await asyncio.sleep(3.0)
    assert made.fleet.gangs.meetings == met, "what woke up began something"
    await asyncio.to_thread(
        made.plane.kubectl, "-n", WORK, "patch", "tjob/bert", "--type=merge", "-p", SUSPEND
    )


async def _standby(process: OperatorProcess) -> bool:
    status, text = await process.page("/readyz")
    return status == 200 and text.startswith("standby: ")


async def _robbed(made: Arena) -> None:
    leader, _ = await made.roles()
    theft: dict[str, Any] = {"spec": {"holderIdentity": "nobody-we-know"}}

    async def steal() -> None:
        await made.store.patch(LEASE, LEASE_NAME, theft, SPACE, field_manager="kubectl-edit")

    await _cut(made, "gpt", leader, steal)
    await made.roles()


async def _cut(made: Arena, name: str, leader: OperatorProcess, how: Callable[[], Awaitable[None]]) -> None:
    begun, epoch, since = await cut(made, name, how)
    assert leader.runs
    await succeeded(made, name, begun, epoch, since)
    halves = made_of(made, f"{WORK}/{name}-a{begun}-")
    assert 0 < len(halves) < RANKS, f"the gang was not cut in two: {sorted(halves)}"
    sound(made)


@pytest.mark.slow  # a control plane of its own, two operator processes, two changes of leader
def test_a_leader_that_is_stopped_or_robbed_while_it_starts_a_gang_never_doubles_it(
    new_control_plane: Started, tmp_path: Path
) -> None:
    plane = new_control_plane(extra=audited(tmp_path))

    async def play() -> None:
        async with arena(tmp_path, plane, nodes=6, lease=LEASE_SECONDS) as made:
            for chapter in (_paused, _robbed):
                await chapter(made)
                sound(made)
            leaderships = terms(made.writes())
            assert len(leaderships) >= 3
            assert late_writes(made.writes(), leaderships) == []
            assert "Traceback" not in "".join(each.told() for each in made.operators.values())

    asyncio.run(play())
