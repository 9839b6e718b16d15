"""The operator's enrolment door as the command line describes it: authority, API server, whose tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from console.kube import open_kube
from console.options import VERSION
from console.telling import Refused, host_and_port
from controller.config import OperatorConfig
from controller.enrolment.authorities import AuthorityFolder
from controller.enrolment.claims import Account
from controller.enrolment.presence import WatchedPresence
from controller.enrolment.server import EnrolmentServer
from controller.enrolment.service import EnrolmentConfig, EnrolmentServicer
from runtime.clock import Clock
from runtime.tls import Source


class EnrolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator was told of enrolment. `account`: NAMESPACE/NAME of the agents' service account."""

    listen: str
    account: str
    kubeconfig: Path | None = None
    context: str | None = None
    certificate_hours: float = 24.0


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """What the door needs of the operator: its root, its own certificate, whether it leads, who counts, who is told
    of each certificate.
    """

    authority: AuthorityFolder
    credentials: Source
    leads: Callable[[], bool]
    counted: Callable[[str, float], None]
    signed: Callable[[str, float], None]


def account_of(text: str) -> Account:
    """NAMESPACE/NAME as an account. Raises: Refused."""
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise Refused(f"--agent-account {text[:100]!r} is no account: write NAMESPACE/NAME.")
    return Account(namespace=namespace, name=name)


async def open_door(
    options: EnrolOptions, door: Door, config: OperatorConfig, clock: Clock, ends: AsyncExitStack
) -> EnrolmentServer:
    """Connect to the API server, follow the agents' pods, listen. What is begun is ended by `ends`.

    Raises: Refused, OSError when the port cannot be had.
    """
    from controller.enrolment.reviewer import KubeReviewer  # the API server's client takes its time to import

    host, port = host_and_port(options.listen, "--enrol-listen")
    account = account_of(options.account)
    store = await open_kube(
        options.kubeconfig,
        options.context,
        config,
        clock,
        ends,
        agent=f"plimsoll-enrolment/{VERSION}",
        why="Enrolment asks the API server who an agent is.",
    )
    presence = WatchedPresence(store, account.namespace, clock)
    servicer = EnrolmentServicer(
        KubeReviewer(store.transport.access.client),
        door.authority,
        clock,
        presence=presence,
        leads=door.leads,
        counted=door.counted,
        signed=door.signed,
        config=EnrolmentConfig(account=account, validity_seconds=options.certificate_hours * 3600.0),
    )
    server = EnrolmentServer(servicer, door.credentials, host=host, port=port)
    await server.start()
    ends.push_async_callback(server.stop)
    stop = asyncio.Event()
    following = asyncio.create_task(presence.run(stop))

    async def end() -> None:
        stop.set()
        await following

    ends.push_async_callback(end)
    return server
