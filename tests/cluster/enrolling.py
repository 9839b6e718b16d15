"""An operator's enrolment door over a real API server, with real tokens of real pods, for the tests beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from agent.bootstrap import Bootstrap, BootstrapConfig
from console.controlplane import ControlPlane
from controller.enrolment.claims import AUDIENCE, Account
from controller.enrolment.presence import WatchedPresence
from controller.enrolment.reviewer import KubeReviewer
from controller.enrolment.server import EnrolmentServer
from controller.enrolment.service import EnrolmentConfig, EnrolmentServicer
from controller.store.kube import Access, KubeStore
from runtime.authority import Authority, Identity, Role
from runtime.clock import WallClock
from simulator.fleet.enrolment import AgentAccount, AgentPods, Enrolments

HUB = Identity(Role.OPERATOR, "hub")
AGENT = "plimsoll-agent"


@dataclass
class Cluster:
    """Everything of one test: the operator's side, the fleet's, and the administrator's."""

    namespace: str
    folder: Path
    core: Any
    reviewer: KubeReviewer
    servicer: EnrolmentServicer
    server: EnrolmentServer
    authority: Authority
    pods: AgentPods
    enrolments: Enrolments
    presence: WatchedPresence

    @property
    def ca_file(self) -> Path:
        return self.folder / "roots.pem"

    async def nodes(self, count: int) -> list[str]:
        """Nodes as their kubelets register them."""
        names = [f"{self.namespace}-n{index}" for index in range(count)]
        for name in names:
            await self.core.create_node({"metadata": {"name": name}})
        return names

    async def token(
        self,
        *,
        pod: str = "",
        kind: str = "Pod",
        audiences: tuple[str, ...] = (AUDIENCE,),
        account: str = AGENT,
    ) -> str:
        """A token as anybody with the right to could ask for it; without `pod` bound to nothing."""
        spec: dict[str, Any] = {"audiences": list(audiences), "expirationSeconds": 600}
        if pod:
            uid = (
                await self.core.read_node(pod)
                if kind == "Node"
                else await self.core.read_namespaced_pod(pod, self.namespace)
            ).metadata.uid
            spec["boundObjectRef"] = {"kind": kind, "apiVersion": "v1", "name": pod, "uid": uid}
        answer = await self.core.create_namespaced_service_account_token(
            account, self.namespace, {"spec": spec}
        )
        return str(answer.status.token)

    def agent(self, node: str, token: str) -> Bootstrap:
        """An agent that was given this token."""
        file = self.folder / "given"
        file.write_text(token)
        config = BootstrapConfig(
            node=node, endpoint=self.server.endpoint, token_file=file, ca_file=self.ca_file
        )
        return Bootstrap(config, WallClock(), random.Random(1).uniform)


@asynccontextmanager
async def cluster(
    plane: ControlPlane,
    namespace: str,
    folder: Path,
    *,
    operator: Path | None = None,
    follows: bool = True,
    **config: Any,
) -> AsyncIterator[Cluster]:
    """`operator` is the kubeconfig of the operator, the administrator's unless given; `follows`: its watches run."""
    clock = WallClock()
    store = await KubeStore.connect(operator or plane.kubeconfig, clock=clock, seed=1)
    admin = await Access.from_kubeconfig(plane.kubeconfig)
    presence = WatchedPresence(store, namespace, clock, seed=1)
    authority = Authority.create(clock)
    (folder / "roots.pem").write_bytes(authority.trusted_pem)
    reviewer = KubeReviewer(store.transport.access.client, deadline_seconds=2.0)
    settings = {"account": Account(namespace=namespace, name=AGENT), "source_burst": 1_000.0} | config
    servicer = EnrolmentServicer(
        reviewer,
        lambda: authority,
        clock,
        presence=presence,
        config=EnrolmentConfig(**settings),
    )
    held = authority.issue(HUB)
    server = EnrolmentServer(servicer, lambda: held)
    await server.start()
    pods = AgentPods(admin.client, AgentAccount(namespace=namespace, name=AGENT), folder / "tokens", clock)
    made = Cluster(
        namespace=namespace,
        folder=folder,
        core=client.CoreV1Api(admin.client),
        reviewer=reviewer,
        servicer=servicer,
        server=server,
        authority=authority,
        pods=pods,
        enrolments=Enrolments(pods, server.endpoint, folder / "roots.pem", clock, random.Random(1).uniform),
        presence=presence,
    )
    stop = asyncio.Event()
    following = asyncio.create_task(presence.run(stop)) if follows else None
    try:
        yield made
    finally:
        stop.set()
        if following is not None:
            await following
        await _leave(made)
        await server.stop()
        await store.close()
        await admin.close()


async def _leave(made: Cluster) -> None:
    """The nodes belong to the whole cluster: other tests must not meet them."""
    for name in _of(await made.core.list_node(), made.namespace):
        with suppress(ApiException):
            await made.core.delete_node(name)
    with suppress(ApiException):
        await made.core.delete_collection_namespaced_pod(made.namespace, grace_period_seconds=0)


def _of(listed: Any, namespace: str) -> Iterator[str]:
    return (each.metadata.name for each in listed.items if each.metadata.name.startswith(f"{namespace}-"))
