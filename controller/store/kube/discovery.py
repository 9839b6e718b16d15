"""Does the API server serve our kinds as this version needs them? Asked at the start, before anything is decided.

Only discovery and the published schema are read, which every account may: rights on the definitions themselves are not
needed. What is missing is said with what to do, and asked for again ever more rarely, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from controller.resources.base import GROUP, VERSION
from controller.resources.kinds import KINDS, Kind
from controller.resources.schema import schema_of
from controller.store.backoff import Backoff
from controller.store.errors import NotFound, StoreError, Unavailable
from controller.store.kube.store import KubeStore
from runtime.clock import Clock
from runtime.pausing import pause

log = logging.getLogger(__name__)

REMEDY = (
    "install this version's definitions: kubectl apply --server-side -f helm/plimsoll/files/crds "
    "(or upgrade the chart)"
)
MOST_NAMED = 5
"""So many missing fields are named, the others counted."""

REMIND_SECONDS = 60.0
BEAT_SECONDS = 1.0
"""While it waits, whoever watches over the process hears from it so often."""

Schema = Mapping[str, Any]


class Missing(msgspec.Struct, frozen=True):
    """Something of a kind that the server does not serve. `str` gives the sentence."""

    kind: str
    what: str

    def __str__(self) -> str:
        """Which, and what is wrong with it."""
        return f"{self.kind}: {self.what}"


async def missing(store: KubeStore, kinds: Sequence[Kind] = KINDS) -> list[Missing]:
    """What the server lacks of our kinds; empty when it has all. Raises what the store raises."""
    try:
        served = await _asked(store, f"/apis/{GROUP}/{VERSION}")
    except NotFound:
        why = await _versions(store)
        return [Missing(kind.resource.kind, why) for kind in kinds]
    found = {each["name"]: each for each in served.get("resources") or ()}
    problems = [problem for kind in kinds for problem in _resources(kind, found)]
    there = [kind for kind in kinds if kind.resource.plural in found]
    return problems + (await _fields(store, there) if there else [])


async def wait_until_served(
    store: KubeStore,
    clock: Clock,
    stop: asyncio.Event,
    *,
    told: Callable[[str], None],
    beat: Callable[[], None],
    seed: int | None = None,
) -> bool:
    """Return True once the server serves all our kinds, False when told to stop before.

    `told` gets the sentence whenever it changes ("" at the end), `beat` is called at least each `BEAT_SECONDS`. Asks
    under a back-off of 0.8 to 30 s; never raises `StoreError`.
    """
    backoff = Backoff(clock, random.Random(seed))
    said, remind_at = "", float("-inf")
    while not stop.is_set():
        sentence, least = await _sentence(store)
        told(sentence)
        if not sentence:
            return True
        wait = backoff.failed(least)
        if sentence != said or clock.monotonic() >= remind_at:
            said, remind_at = sentence, clock.monotonic() + REMIND_SECONDS
            log.error("%s; asking again in %.1f s", sentence, wait)
        while not backoff.ready and not stop.is_set():
            beat()
            await pause(stop, min(BEAT_SECONDS, backoff.wait_seconds))
    return False


async def _sentence(store: KubeStore) -> tuple[str, float]:
    """What is wrong now, in words, and how long the server wants to be left alone."""
    try:
        problems = await missing(store)
    except StoreError as error:
        return (
            f"The API server does not say which kinds it serves: {error.message}",
            error.retry_after_seconds,
        )
    if not problems:
        return "", 0.0
    alike: dict[str, list[str]] = {}
    for each in problems:
        alike.setdefault(each.what, []).append(each.kind)
    listed = "; ".join(str(Missing(", ".join(kinds), what)) for what, kinds in alike.items())
    where = store.transport.access.endpoint
    return (
        f"The API server at {where} does not serve what this operator needs. {listed}. To mend it, {REMEDY}",
        0.0,
    )


async def _asked(store: KubeStore, path: str) -> dict[str, Any]:
    raw = await store.transport.read(path, {}, f"discover {path}")
    try:
        answer: dict[str, Any] = msgspec.json.decode(raw, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(f"discover {path}: the answer is no object ({error})") from error
    return answer


async def _versions(store: KubeStore) -> str:
    """Why the version is not there: no definition of the group at all, or other versions of it."""
    try:
        group = await _asked(store, f"/apis/{GROUP}")
    except NotFound:
        return f"not there, as nothing of {GROUP} is"
    others = ", ".join(str(each.get("version")) for each in group.get("versions") or ())
    return f"served in another version ({others}), needed is {VERSION}"


def _resources(kind: Kind, found: Mapping[str, Any]) -> Iterator[Missing]:
    resource = kind.resource
    served = found.get(resource.plural)
    if served is None:
        yield Missing(resource.kind, f"not there in {GROUP}/{VERSION}")
        return
    if bool(served.get("namespaced")) != resource.namespaced:
        yield Missing(resource.kind, "namespaced" if served.get("namespaced") else "not namespaced")
    for part, wanted in (("status", resource.has_status), ("scale", resource.scale is not None)):
        if wanted and f"{resource.plural}/{part}" not in found:
            yield Missing(resource.kind, f"without the {part} subresource")


async def _fields(store: KubeStore, kinds: Sequence[Kind]) -> list[Missing]:
    """Fields that we write or read and the served schema lacks: an older definition drops or refuses them."""
    try:
        published = await _asked(store, f"/openapi/v3/apis/{GROUP}/{VERSION}")
    except NotFound:  # a definition that has just come is served before its schema is published
        published = {}
    schemas = (published.get("components") or {}).get("schemas") or {}
    problems = []
    for kind in kinds:
        name = kind.resource.kind
        served = next((each for each in schemas.values() if _is_of(each, name)), None)
        if served is None:
            problems.append(Missing(name, "without a published schema yet"))
            continue
        absent = [path for path in _absent(schema_of(name), served) if path.startswith(("spec", "status"))]
        if absent:
            more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
            listed = ", ".join(absent[:MOST_NAMED])
            problems.append(Missing(name, f"of an older definition, without {listed}{more}"))
    return problems


def _is_of(schema: Schema, kind: str) -> bool:
    named = schema.get("x-kubernetes-group-version-kind") or ()
    return any(each.get("group") == GROUP and each.get("kind") == kind for each in named)


def _absent(wanted: Schema, served: Schema, at: str = "") -> Iterator[str]:
    """Paths of properties that the served schema lacks, outermost first."""
    theirs = served.get("properties") or {}
    if served.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, below in (wanted.get("properties") or {}).items():
        path = f"{at}.{name}" if at else name
        if name not in theirs:
            yield path
            continue
        yield from _absent(below, theirs[name], path)
        inner, their_inner = below.get("items"), theirs[name].get("items")
        if isinstance(inner, dict) and isinstance(their_inner, dict):
            yield from _absent(inner, their_inner, f"{path}[]")
        inner, their_inner = below.get("additionalProperties"), theirs[name].get("additionalProperties")
        if isinstance(inner, dict) and isinstance(their_inner, dict):
            yield from _absent(inner, their_inner, f"{path}{{}}")
