"""Agent pods of simulated nodes on a real API server, their tokens as a kubelet asks for them, and what follows:
each node's agent gets its certificate from the operator's enrolment service, as a real one does.

A cluster has a DaemonSet, kubelets and projected volumes for this; here one object plays all three. On an embedded
store there are no tokens, and the fleet's certificates come from a local authority.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from agent.bootstrap import Bootstrap, BootstrapConfig, BootstrapError
from runtime.authority import write_private
from runtime.channels import Backoff
from runtime.clock import Clock
from runtime.pausing import pause
from runtime.tls import Source

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
AT_ONCE = 16
"""Nodes placed and enrolled side by side."""
REFRESH_FRACTION = 0.8
"""A kubelet exchanges a token at this share of its life."""
GONE = frozenset({404, 409})
EXISTS = 409


class AgentAccount(msgspec.Struct, frozen=True, kw_only=True):
    """As whom the agents' pods run, and for whom their tokens are. `token_seconds`: 600 is the shortest there is."""

    namespace: str = "plimsoll-agents"
    name: str = "plimsoll-agent"
    audience: str = "plimsoll-enrolment"
    token_seconds: int = 600


class EnrolmentFailed(Exception):
    """A pod or token could not be had from the API server; the text says which, for what node, and the status."""


class Placed(msgspec.Struct, frozen=True):
    """An agent's pod, and when its token is to be exchanged (UTC seconds)."""

    pod: str
    uid: str
    refresh_at_seconds: float


class AgentPods:
    """One agent pod a node, and its token in a file. All methods belong to one event loop.

    The account may create service accounts, pods and `serviceaccounts/token`: that of a cluster's own parts, not of
    the operator and not of an agent.
    """

    def __init__(self, api: client.ApiClient, account: AgentAccount, folder: Path, clock: Clock) -> None:
        """Tokens are written to `folder`/NODE/token, mode 0600. The clock is on wall time."""
        self._core: Any = client.CoreV1Api(api)
        self._account = account
        self._folder = folder
        self._clock = clock
        self._placed: dict[str, Placed] = {}

    @property
    def account(self) -> AgentAccount:
        """As whom the pods run."""
        return self._account

    def token_file(self, node: str) -> Path:
        """Where the node's token lies."""
        return self._folder / node / "token"

    def has(self, node: str) -> bool:
        """Whether the node's agent pod was placed."""
        return node in self._placed

    async def settle(self) -> None:
        """Namespace and service account, if they are not there. Raises: EnrolmentFailed."""
        namespace, name = self._account.namespace, self._account.name
        meta = client.V1ObjectMeta
        await self._create(
            self._core.create_namespace(
                client.V1Namespace(metadata=meta(name=namespace)), _request_timeout=REQUEST_SECONDS
            ),
            f"namespace {namespace}",
        )
        account = client.V1ServiceAccount(metadata=meta(name=name), automount_service_account_token=False)
        await self._create(
            self._core.create_namespaced_service_account(
                namespace, account, _request_timeout=REQUEST_SECONDS
            ),
            f"service account {namespace}/{name}",
        )

    async def place(self, node: str) -> Placed:
        """The agent's pod on this node, made if it is not there, with a new token in its file.

        Raises: EnrolmentFailed. The node must exist, else its token would not name it.
        """
        pod = agent_pod(node, self._account)
        name = pod["metadata"]["name"]
        namespace = self._account.namespace
        await self._create(
            self._core.create_namespaced_pod(namespace, pod, _request_timeout=REQUEST_SECONDS),
            f"pod {namespace}/{name}",
        )
        found = await self._asked(
            self._core.read_namespaced_pod(name, namespace, _request_timeout=REQUEST_SECONDS),
            f"pod {namespace}/{name}",
        )
        return await self._token(node, name, found.metadata.uid)

    async def refresh(self, now_seconds: float) -> None:
        """Exchange the tokens that are due; a pod that is gone is placed anew, as a DaemonSet does.

        Raises: EnrolmentFailed, after all that are due were tried.
        """
        failed: EnrolmentFailed | None = None
        for node, placed in list(self._placed.items()):
            if now_seconds < placed.refresh_at_seconds:
                continue
            try:
                await self.place(node)
            except EnrolmentFailed as error:
                failed = error
        if failed is not None:
            raise failed

    async def remove(self, node: str) -> None:
        """The node's agent pod at once, and its token. Raises: EnrolmentFailed."""
        placed = self._placed.pop(node, None)
        self.token_file(node).unlink(missing_ok=True)
        if placed is None:
            return
        options = client.V1DeleteOptions(
            grace_period_seconds=0, preconditions=client.V1Preconditions(uid=placed.uid)
        )
        deleting = self._core.delete_namespaced_pod(
            placed.pod, self._account.namespace, body=options, _request_timeout=REQUEST_SECONDS
        )
        await self._asked(deleting, f"pod {self._account.namespace}/{placed.pod}", passing=GONE)

    async def _token(self, node: str, pod: str, uid: str) -> Placed:
        """A token bound to the pod, as its kubelet asks for it, into the file."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        spec = {
            "audiences": [self._account.audience],
            "expirationSeconds": self._account.token_seconds,
            "boundObjectRef": bound,
        }
        answer = await self._asked(
            self._core.create_namespaced_service_account_token(
                self._account.name,
                self._account.namespace,
                {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
                _request_timeout=REQUEST_SECONDS,
            ),
            f"a token for pod {self._account.namespace}/{pod}",
        )
        file = self.token_file(node)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, answer.status.token.encode())
        now = self._clock.now()
        life = answer.status.expiration_timestamp.timestamp() - now
        made = Placed(pod, uid, now + REFRESH_FRACTION * life)
        self._placed[node] = made
        return made

    async def _create(self, creating: Any, what: str) -> None:
        await self._asked(creating, what, passing=frozenset({EXISTS}))

    async def _asked(self, asking: Any, what: str, passing: frozenset[int] = frozenset()) -> Any:
        """The answer; None for a status that passes. The server's text is left out: it may hold what was sent."""
        try:
            return await asking
        except ApiException as error:
            if error.status in passing:
                return None
            raise EnrolmentFailed(
                f"The API server answered {error.status} ({error.reason}) for {what}."
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnrolmentFailed(
                f"The API server did not answer for {what} ({type(error).__name__})."
            ) from None
        except ValueError:
            raise EnrolmentFailed(f"The API server's answer for {what} cannot be read.") from None


class Enrolments:
    """The certificates of a fleet's agents. `source(node)` is what the node speaks with."""

    def __init__(
        self,
        pods: AgentPods,
        endpoint: str,
        ca_file: Path,
        clock: Clock,
        draw: Callable[[float, float], float],
        patience_seconds: float = 120.0,
    ) -> None:
        """`endpoint` is the operator's enrolment door, `ca_file` the roots that it is checked by.

        `patience_seconds` is how long whoever starts a fleet waits for all certificates before it goes on without.
        """
        self.patience_seconds = patience_seconds
        self._wanted: tuple[str, ...] = ()
        self._pods = pods
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._clock = clock
        self._draw = draw
        self.bootstraps: dict[str, Bootstrap] = {}

    def source(self, node: str) -> Source:
        """The node's credentials as they are at each call; BootstrapError while it has none."""
        return self._bootstrap(node).credentials

    async def join(self, nodes: Iterable[str], stop: asyncio.Event) -> bool:
        """Place every node's pod and get its certificate, tried again with pauses; False when told to stop before."""
        self._wanted = tuple(nodes)
        for node in self._wanted:
            self._bootstrap(node)
        room = asyncio.Semaphore(AT_ONCE)
        await self._until(self._pods.settle, stop)

        async def one(node: str) -> None:
            async with room:
                await self._until(lambda: self._pods.place(node), stop)
                await self._until(self._bootstrap(node).enrol, stop)

        await asyncio.gather(*(one(node) for node in self._wanted))
        return not stop.is_set()

    async def run(self, stop: asyncio.Event, period_seconds: float = 1.0) -> None:
        """Keep tokens and certificates new until `stop` is set; what `join` was too early for is done here."""
        renewing = [asyncio.create_task(each.run(stop)) for each in self.bootstraps.values()]
        while not stop.is_set():
            try:
                for node in self._wanted:
                    if not self._pods.has(node):
                        await self._pods.place(node)
                await self._pods.refresh(self._clock.now())
            except EnrolmentFailed as error:
                logger.warning("a token is not exchanged yet: %s", error)
            await pause(stop, period_seconds)
        await asyncio.gather(*renewing)

    async def _until(self, doing: Callable[[], Any], stop: asyncio.Event) -> None:
        backoff = Backoff(self._draw, 0.1, 5.0)
        told = ""
        while not stop.is_set():
            try:
                await doing()
            except (EnrolmentFailed, BootstrapError) as error:
                if str(error) != told:
                    logger.warning("a simulated node is not enrolled yet: %s", error)
                told = str(error)
                await pause(stop, backoff.next_seconds())
            else:
                return

    def _bootstrap(self, node: str) -> Bootstrap:
        made = self.bootstraps.get(node)
        if made is None:
            config = BootstrapConfig(
                node=node,
                endpoint=self._endpoint,
                token_file=self._pods.token_file(node),
                ca_file=self._ca_file,
            )
            made = self.bootstraps[node] = Bootstrap(config, self._clock, self._draw)
        return made


def agent_pod(node: str, account: AgentAccount) -> dict[str, Any]:
    """The pod that a DaemonSet would make on a node: our token projected, no other, nothing of the API server's."""
    token = {"audience": account.audience, "expirationSeconds": account.token_seconds, "path": "token"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"plimsoll-agent-{node}",
            "namespace": account.namespace,
            "labels": {"app.kubernetes.io/name": "plimsoll-agent"},
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": account.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "agent",
                    "image": "plimsoll/agent:simulated",
                    "volumeMounts": [
                        {"name": "enrolment", "mountPath": "/var/run/plimsoll/enrolment", "readOnly": True}
                    ],
                }
            ],
            "volumes": [{"name": "enrolment", "projected": {"sources": [{"serviceAccountToken": token}]}}],
        },
    }
