"""The enrolment door on loopback with real TLS and a real root; tokens come from a book that keeps the API server's rules.

What the API server itself says of tokens is asked of a real one in `tests/cluster`.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from agent.bootstrap import Bootstrap, BootstrapConfig, signing_request
from agent.node.link import HubLink
from controller.enrolment.claims import AUDIENCE, CLAIMS, Account, Bound
from controller.enrolment.review import Review, ReviewFailed
from controller.enrolment.server import EnrolmentServer
from controller.enrolment.service import EnrolmentConfig, EnrolmentServicer
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.clock import Clock, WallClock
from tests.hub.support import until
from wire import agent_pb2

HUB = Identity(Role.OPERATOR, "hub")
ACCOUNT = Account()
NODE = "gpu-node-1"
DAY = 86_400.0
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"
"""Stands for a token's signature: what must never be seen in a log."""


def token_of(claims: dict[str, object]) -> str:
    """A token with this payload; its signature is recognisable."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.{SECRET}{random.getrandbits(64):x}"


@dataclass
class TokenBook:
    """Issues tokens and reviews them as the API server does: authenticated for the audiences that both name."""

    clock: Clock
    reviews: dict[str, Review] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: str = ""

    def issue(
        self,
        node: str = NODE,
        *,
        audiences: tuple[str, ...] = (AUDIENCE,),
        username: str = ACCOUNT.username,
        lives_seconds: float = 600.0,
        without: tuple[str, ...] = (),
        **changed: tuple[str, ...],
    ) -> str:
        extra = {
            "node-name": (node,),
            "node-uid": (f"uid-of-{node}",),
            "pod-name": (f"agent-{node}",),
            "pod-uid": (f"uid-of-agent-{node}",),
            "credential-id": ("JTI=0b8f6a5e",),
        } | {name.replace("_", "-"): values for name, values in changed.items()}
        token = token_of({"aud": list(audiences), "exp": self.clock.now() + lives_seconds})
        self.reviews[token] = Review(
            authenticated=True,
            username=username,
            audiences=audiences,
            extra={CLAIMS + name: values for name, values in extra.items() if name not in without},
        )
        return token

    async def review(self, token: str, audience: str) -> Review:
        self.asked.append(token)
        if self.failing:
            raise ReviewFailed(self.failing)
        known = self.reviews.get(token)
        if known is None or audience not in known.audiences:
            return Review(authenticated=False, error="invalid bearer token")
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims["exp"] <= self.clock.now():
            return Review(authenticated=False, error="service account token has expired")
        return Review(authenticated=True, username=known.username, audiences=(audience,), extra=known.extra)


@dataclass
class Seen:
    """A presence that knows what it is told."""

    why: str = ""

    def missing(self, bound: Bound) -> str:
        return self.why


@dataclass
class Door:
    """Everything of one enrolment service."""

    clock: Clock
    book: TokenBook
    presence: Seen
    authority: Authority
    servicer: EnrolmentServicer
    server: EnrolmentServer
    folder: Path
    leads: bool = True
    counted: list[str] = field(default_factory=list)
    signed: Callable[[str, float], None] = lambda _node, _until: None

    def agent(self, node: str = NODE, token: str | None = None, **config: object) -> Bootstrap:
        """The agent's side, its files written."""
        self.put_token(token if token is not None else self.book.issue(node))
        (self.folder / "roots.pem").write_bytes(self.authority.trusted_pem)
        settings = {
            "node": node,
            "endpoint": self.server.endpoint,
            "token_file": self.folder / "token",
            "ca_file": self.folder / "roots.pem",
            "base_seconds": 0.01,
            "cap_seconds": 0.05,
        }
        made = BootstrapConfig(**(settings | config))  # type: ignore[arg-type]
        return Bootstrap(made, self.clock, random.Random(1).uniform)

    def put_token(self, token: str) -> None:
        """As the kubelet exchanges it: a new file renamed over the old one."""
        scratch = self.folder / "token.new"
        scratch.write_text(token)
        scratch.replace(self.folder / "token")


@asynccontextmanager
async def door(
    folder: Path, *, clock: Clock | None = None, reviewer: object | None = None, **config: object
) -> AsyncIterator[Door]:
    """Opens an enrolment service on a free port, and closes it."""
    clock = clock or WallClock()
    authority = Authority.create(WallClock())
    book = TokenBook(clock)
    presence = Seen()
    held = authority.issue(HUB)
    settings = {"source_burst": 1_000.0, "source_per_second": 1_000.0} | config
    made: Door

    def signed(node: str, until_seconds: float) -> None:
        made.signed(node, until_seconds)

    servicer = EnrolmentServicer(
        reviewer or book,  # type: ignore[arg-type]
        lambda: made.authority,
        clock,
        presence=presence,
        leads=lambda: made.leads,
        counted=lambda outcome, _seconds: made.counted.append(outcome),
        signed=signed,
        config=EnrolmentConfig(**settings),  # type: ignore[arg-type]
    )
    server = EnrolmentServer(servicer, lambda: held)
    made = Door(clock, book, presence, authority, servicer, server, folder)
    await server.start()
    try:
        yield made
    finally:
        await server.stop()


def request_for(node: str = NODE, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A good signing request."""
    return signing_request(Identity(Role.NODE, node), key or ec.generate_private_key(ec.SECP256R1()))


def node_credentials(authority: Authority, node: str = NODE) -> Credentials:
    return authority.issue(Identity(Role.NODE, node))


class Serving:
    def __init__(self, server: HubServer) -> None:
        self._server = server

    async def __aenter__(self) -> HubServer:
        await self._server.start()
        return self._server

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()


async def greets(hub: Hub, server: HubServer, credentials: Credentials) -> None:
    """Says hello at the hub, and leaves. Raises: LinkError."""
    hello = agent_pb2.AgentMessage(
        node=NODE, sequence=1, hello=agent_pb2.Hello(boot_id="b", driver="simulated")
    )
    link = await HubLink.open(server.endpoint, HUB, credentials, hello, lambda _message: None)
    await link.close()
    await until(lambda: not hub.connected(NODE))
