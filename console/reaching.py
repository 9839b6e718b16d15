"""A person's way to a running operator: certificate, connection, names of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from console.kinds import by_name, resources
from console.telling import Refused, chosen, host_and_port
from controller.store.errors import Unavailable
from controller.store.interface import Resource
from controller.store.remote import RemoteStore
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring

DEADLINE_SECONDS = 10.0


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operator is, and as whom to speak to it."""

    operator: str
    pki: Path
    admin: str = "admin"

    @asynccontextmanager
    async def store(self) -> AsyncIterator[RemoteStore]:
        """The operator's store. Raises the store's errors, AuthorityError, Refused."""
        host_and_port(self.operator, "--operator")
        credentials = Keyring(self.pki, WallClock()).get(Identity(Role.ADMIN, self.admin))
        try:
            store = await RemoteStore.connect(self.operator, credentials, deadline_seconds=DEADLINE_SECONDS)
        except Unavailable as error:
            raise Refused(
                f"No operator answers at {self.operator}: is it running there? Start one with `plimsoll operator`, or "
                f"say where with --operator or PLIMSOLL_OPERATOR. ({error.message})"
            ) from error
        try:
            yield store
        finally:
            await store.close()


def kind_named(word: str) -> Resource:
    """A kind by any of its names. Raises Refused with the nearest."""
    names = by_name()
    return names[chosen("kind", word.lower(), names, [resource.plural for resource in resources()])]


def split(name: str, resource: Resource, namespace: str) -> tuple[str, str]:
    """`NAMESPACE/NAME` or a name alone, as (namespace, name). Raises Refused for a namespace where none belongs."""
    given, slash, rest = name.partition("/")
    if not slash:
        return (namespace or "default" if resource.namespaced else ""), name
    if not resource.namespaced:
        raise Refused(
            f"{resource.kind} {rest!r} belongs to the cluster, not to a namespace: write its name alone."
        )
    if namespace and namespace != given:
        raise Refused(
            f"{name!r} names namespace {given!r}, and --namespace says {namespace!r}: give one of them."
        )
    return given, rest
