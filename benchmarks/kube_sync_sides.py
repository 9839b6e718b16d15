"""The processes of the kube-sync benchmark: `python -m benchmarks.kube_sync_sides server|ours|official`.

The server has its bodies before anybody asks and lives in a process of its own, so that what it costs is nobody's figure.
Each client is fresh: its peak of memory has its imports in it, and nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import resource
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.listwatch import Answer, AnswerKind, Collection, ListWatchServer, World, bodies
from benchmarks.sides import heard, say
from runtime.authority import Authority, Identity, Role, write_private
from runtime.clock import WallClock

NODES, PODS, DOMAINS = "/api/v1/nodes", "/api/v1/pods", "/apis/plimsoll.dev/v1alpha1/powerdomains"
DOMAIN_COUNT = 20
BATCH = 200
MOST_BUFFERED_BYTES = 1 << 20
HOST = "localhost"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a side is told first; `endpoint` and `authority` (a file) are for the clients."""

    folder: str
    nodes: int
    pods: int
    seed: int
    endpoint: str = ""
    authority: str = ""


def used() -> float:
    """This process's processor time so far, user and system, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """The most memory this process ever held, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# ------------------------------------------------------------------------------------------------ the server


class ServerSide:
    """The collections, and what the benchmark lets happen to them."""

    def __init__(self, setup: Setup) -> None:
        world = World(1_000_000)
        self.setup = setup
        self.template = bodies.pod_template()
        self.pods = Collection(world, PODS, "Pod", "v1")
        self.nodes = Collection(world, NODES, "Node", "v1")
        self.domains = Collection(world, DOMAINS, "PowerDomain", "plimsoll.dev/v1alpha1")
        node_template = bodies.node_template()
        self.nodes.fill(
            (f"node-{each:06d}", bodies.node(node_template, each, world.version))
            for each in range(setup.nodes)
        )
        self.pods.fill((self.key(each), self.pod(each, world.version)) for each in range(setup.pods))
        self.domains.fill((f"d-{each}", _domain(each, world.version)) for each in range(DOMAIN_COUNT))
        self.server = ListWatchServer([self.pods, self.nodes, self.domains])
        self.changed = 0

    @staticmethod
    def key(number: int) -> str:
        """Under which a pod is found."""
        return f"shop/serving-{number:07d}"

    def pod(self, number: int, version: int) -> bytes:
        """One pod's body."""
        return bodies.pod(self.template, number, number % max(1, self.setup.nodes), version)

    async def serve(self, lines: asyncio.StreamReader) -> None:
        """Listen, say where, and do as told until the benchmark is over."""
        folder = Path(self.setup.folder)
        authority = Authority.create(WallClock())
        shown = authority.issue(Identity(Role.OPERATOR, "listwatch"), hosts=(HOST,))
        write_private(folder / "key.pem", shown.key_pem)
        (folder / "certificate.pem").write_bytes(shown.certificate_pem)
        (folder / "authority.pem").write_bytes(authority.certificate_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        endpoint = (await self.server.start(context)).replace("127.0.0.1", HOST)
        size = len(self.pod(0, 0)) if self.setup.pods else 0
        say({"endpoint": endpoint, "authority": str(folder / "authority.pem"), "pod_bytes": size})
        while line := await lines.readline():
            told = msgspec.json.decode(line)
            if told["do"] == "churn":
                say({"version": await self.churn(told["count"])})
            elif told["do"] == "gone":
                # No stream that begins with everything: it would go on as the watch, and there would be none to refuse.
                self.server.streams_lists = False
                self.server.always["watch", DOMAINS] = Answer(AnswerKind.REFUSE, 410)
                self.server.asked.clear()
                say({})
            elif told["do"] == "asked":
                say(
                    {
                        "lists": self.server.asked["list", DOMAINS],
                        "watches": self.server.asked["watch", DOMAINS],
                    }
                )

    async def churn(self, count: int) -> int:
        """Change pods, one event each, as fast as the client takes them; the version of the last."""
        for begun in range(0, count, BATCH):
            for _ in range(min(BATCH, count - begun)):
                number = self.changed % self.setup.pods
                self.changed += 1
                version = self.pods.world.next()
                self.server.tell(
                    self.pods, self.pods.put(self.key(number), self.pod(number, version), version)
                )
            self.pods.compact()  # nobody watches from before: the log would only take memory
            while self.buffered_bytes() > MOST_BUFFERED_BYTES:  # noqa: ASYNC110 - a socket's buffer tells nobody
                await asyncio.sleep(0.001)
        return self.pods.world.version

    def buffered_bytes(self) -> int:
        """What no client has taken yet."""
        return max(
            (each.transport.get_write_buffer_size() for each in self.server.streams_of(self.pods)), default=0
        )


def _domain(number: int, version: int) -> bytes:
    meta = {"name": f"d-{number}", "uid": f"u-{number}", "resourceVersion": str(version)}
    return msgspec.json.encode({"metadata": meta, "kind": "PowerDomain", "apiVersion": "plimsoll.dev/v1alpha1",
                                "spec": {"ratingWatts": 10_000}})  # fmt: skip


# -------------------------------------------------------------------------------------------------- clients


async def ours(setup: Setup, lines: asyncio.StreamReader) -> None:
    """Store and cache of the operator, with the operator's projections."""
    from benchmarks.fault_runs import write_kubeconfig  # noqa: PLC0415 - the other sides need none of this
    from controller.resources import core  # noqa: PLC0415
    from controller.resources.kinds import POWER_DOMAIN  # noqa: PLC0415
    from controller.resources.powerdomain import PowerDomain  # noqa: PLC0415
    from controller.store.cache import Reflector  # noqa: PLC0415
    from controller.store.kube import KubeStore  # noqa: PLC0415

    clock = WallClock()
    kubeconfig = write_kubeconfig(Path(setup.folder), setup.endpoint, setup.authority)
    store = await KubeStore.connect(kubeconfig, clock=clock, seed=setup.seed)
    nodes = Reflector(store, core.NODE, core.Node, clock)
    pods = Reflector(store, core.POD, core.Pod, clock)
    domains = Reflector(store, POWER_DOMAIN, PowerDomain, clock)
    say({"imported_mb": peak_mb()})
    while line := await lines.readline():
        told = msgspec.json.decode(line)
        before, began = used(), time.monotonic()
        if told["do"] == "sync":
            while not (nodes.has_synced and pods.has_synced):
                await nodes.pump()
                await pods.pump()
            found = {
                "nodes": len(nodes.objects),
                "pods": len(pods.objects),
                "lists": nodes.lists + pods.lists,
            }
        elif told["do"] == "follow":
            changes = 0
            while changes < told["count"]:
                await asyncio.sleep(0.005)
                changes += len(await pods.pump())
            found = {"changes": changes, "lists": pods.lists}
        else:
            while time.monotonic() - began < told["seconds"]:
                await domains.pump()
                await asyncio.sleep(0.02)
            found = {"domains": len(domains.objects)}
        say({"cpu_s": used() - before, "took_s": time.monotonic() - began, "peak_mb": peak_mb(), **found})


async def official(setup: Setup, lines: asyncio.StreamReader) -> None:
    """The official client's informers, one for each kind, as its documentation shows them."""
    from kubernetes import client  # noqa: PLC0415 - the other sides need none of this

    follower: Any = importlib.import_module("kubernetes.informer").SharedInformer  # it carries no types
    configuration: Any = client.Configuration()
    configuration.host, configuration.ssl_ca_cert = setup.endpoint, setup.authority
    api: Any = client.ApiClient(configuration)
    core_api, custom_api = client.CoreV1Api(api), client.CustomObjectsApi(api)
    nodes = follower(core_api.list_node)
    pods = follower(core_api.list_pod_for_all_namespaces)

    def list_domains(**given: Any) -> Any:
        found: Any = custom_api.list_cluster_custom_object(
            "plimsoll.dev", "v1alpha1", "powerdomains", **given
        )
        return found if given.get("watch") else _Listed(found)

    domains = follower(list_domains)
    say({"imported_mb": peak_mb()})
    while line := await lines.readline():
        told = msgspec.json.decode(line)
        before, began = used(), time.monotonic()
        if told["do"] == "sync":
            nodes.start()
            pods.start()
            while len(nodes.cache.list_keys()) < setup.nodes or len(pods.cache.list_keys()) < setup.pods:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            found = {"nodes": len(nodes.cache.list_keys()), "pods": len(pods.cache.list_keys())}
        else:
            domains.start()
            await asyncio.sleep(told["seconds"])
            found = {"domains": len(domains.cache.list_keys())}
        say({"cpu_s": used() - before, "took_s": time.monotonic() - began, "peak_mb": peak_mb(), **found})


class _Listed:
    """A list of custom objects with the attributes that the informer asks of a typed one."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.items = found["items"]
        self.metadata = self
        self.resource_version = found["metadata"]["resourceVersion"]


async def main(side: str) -> None:
    """Reads the setup from standard input and plays the side."""
    lines = await heard()
    setup = msgspec.json.decode(await lines.readline(), type=Setup)
    if side == "server":
        await ServerSide(setup).serve(lines)
    else:
        await (ours if side == "ours" else official)(setup, lines)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # of the storm, each line is one that was expected
    asyncio.run(main(sys.argv[1]))
