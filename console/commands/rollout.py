"""`plimsoll rollout status|history` and `plimsoll rollback`: a change of what runs, seen and taken back.

Taking back is a change of the user's own object, made by whoever asks and with their rights; the operator then rolls it
out as any other. What there is to go back to is read from the ControllerRevisions that the object owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

from console.kube import open_kube
from console.reaching import Reach, split
from console.telling import Refused, chosen, coloured, one_sentence, people, print_json
from controller.config import OperatorConfig
from controller.observe import labels
from controller.observe.revisions import COMPLETE, PARTS, Kept, RevisionBook, name_of, template_of
from controller.resources.core import CONTROLLER_REVISION, ControllerRevision
from controller.resources.kinds import MODEL_SERVICE
from controller.resources.modelservice import ModelService
from controller.store.errors import Conflict
from controller.store.interface import EventType, JsonObject, Store, WatchEvent
from controller.telling.clock_text import rfc3339
from runtime.clock import WallClock

MANAGER = "plimsoll-cli"
WORDS = {"": "going on", "Complete": "complete", "Failed": "given up"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whose rollout, and where its objects are: at `reach`, or on the cluster of a kubeconfig and context."""

    name: str
    namespace: str = ""
    reach: Reach
    kubeconfig: Path | None = None
    context: str | None = None

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The store, with the rights of whoever asks. Raises Refused and the store's errors."""
        if self.kubeconfig is None and self.context is None:
            async with self.reach.store() as store:
                yield store
            return
        async with AsyncExitStack() as ends:
            yield await open_kube(
                self.kubeconfig, self.context, OperatorConfig(), WallClock(), ends, agent=MANAGER
            )

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name. Raises Refused."""
        return split(self.name, MODEL_SERVICE, self.namespace)


def run_history(asked: Asked, output: str) -> int:
    """List the revisions that are kept; 0, or 2 when the object or the store is not there."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        obj, kept = asyncio.run(_kept(asked))
        rows = [_row(each, name_of(template_of(obj.spec))) for each in kept]
        if output == "json":
            print_json({"object": f"ModelService {obj.metadata.key}", "revisions": rows})
        elif not rows:
            people().print(f"Nothing is kept of ModelService {escape(obj.metadata.key)} yet.")
        else:
            people().print(_table(rows))
    return 0


async def _kept(asked: Asked) -> tuple[ModelService, list[Kept]]:
    async with asked.store() as store:
        return await _read(store, asked)


async def _read(store: Store, asked: Asked) -> tuple[ModelService, list[Kept]]:
    namespace, name = asked.key
    obj = msgspec.convert(await store.get(MODEL_SERVICE, name, namespace), ModelService)
    selector = f"{labels.MANAGED_BY}=plimsoll,{labels.SERVICE}={name}"
    book = RevisionBook()
    for found in (await store.list(CONTROLLER_REVISION, namespace, label_selector=selector)).items:
        revision = msgspec.convert(found, ControllerRevision)
        book.take(revision.metadata.key, revision)
    return obj, book.of(obj.metadata.key, obj.metadata.uid)


def _row(kept: Kept, wanted: str) -> dict[str, Any]:
    took = kept.ended_seconds - kept.began_seconds if kept.ended_seconds else None
    return {
        "revision": kept.number,
        "name": kept.name,
        "wanted": kept.name == wanted,
        "model": kept.template.get("model", {}).get("name", ""),
        "image": kept.template.get("image", ""),
        "other": sorted(set(kept.template) - {"model", "image"}),
        "began": rfc3339(kept.began_seconds) if kept.began_seconds else None,
        "outcome": kept.outcome,
        "why": kept.why,
        "tookSeconds": None if took is None else round(took, 3),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "REVISION",
        "NAME",
        "MODEL",
        "IMAGE",
        "BEGAN",
        "OUTCOME",
        "TOOK",
        "WHY",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for row in rows:
        table.add_row(
            f"{row['revision']}{' *' if row['wanted'] else ''}",
            row["name"],
            escape(row["model"] + "".join(f" +{part}" for part in row["other"])),
            escape(row["image"] or "the operator's default"),
            row["began"] or "",
            WORDS.get(row["outcome"], escape(row["outcome"])),
            "" if row["tookSeconds"] is None else f"{row['tookSeconds']:.0f} s",
            escape(row["why"]),
        )
    return table


def run_rollback(asked: Asked, to_revision: int, output: str) -> int:
    """Make the object ask for an older revision again; 0, or 2 where there is none such or it could not be written."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        obj, target = asyncio.run(_rollback(asked, to_revision))
        told = f"ModelService {obj.metadata.key}"
        if output == "json":
            print_json({"object": told, "revision": target.number, "name": target.name})
        else:
            image = target.template.get("image", "") or "the operator's default image"
            model = target.template.get("model", {}).get("name", "")
            people().print(
                f"{escape(told)} asks for revision {target.number} again: {escape(model)}, {escape(image)}"
            )
            people().print("[dim]Whoever applies its manifest has to change that too.[/dim]")
    return 0


async def _rollback(asked: Asked, to_revision: int) -> tuple[ModelService, Kept]:
    namespace, name = asked.key
    async with asked.store() as store:
        obj, kept = await _read(store, asked)
        target = target_of(obj, kept, to_revision)
        current = await store.get(MODEL_SERVICE, name, namespace)
        if current["metadata"]["resourceVersion"] != obj.metadata.resource_version:
            raise Conflict(
                f"ModelService {obj.metadata.key} was changed at this moment: look again, then ask again"
            )
        names = {each.encode_name for each in msgspec.structs.fields(type(obj.spec)) if each.name in PARTS}
        before = {part: current["spec"][part] for part in names if part in current["spec"]}
        await store.patch(
            MODEL_SERVICE,
            name,
            {"spec": becoming(before, target.template)},
            namespace,
            field_manager=MANAGER,
            uid=obj.metadata.uid,
            resource_version=obj.metadata.resource_version,
        )
        return obj, target


def target_of(obj: ModelService, kept: list[Kept], to_revision: int) -> Kept:
    """The revision to go back to: the one named, else the newest complete one before what is wanted now.

    Raises Refused where there is none, or it is wanted already.
    """
    wanted = name_of(template_of(obj.spec))
    listed = ", ".join(str(each.number) for each in kept) or "none"
    if not to_revision:
        good = [each for each in kept if each.outcome == COMPLETE and each.name != wanted]
        if not good:
            raise Refused(
                f"ModelService {obj.metadata.key} has no complete revision beside the one it asks for (kept: {listed})."
            )
        return good[-1]
    found = next((each for each in kept if each.number == to_revision), None)
    if found is None:
        raise Refused(
            f"ModelService {obj.metadata.key} has no revision {to_revision}: choose one of {listed}, as "
            "`plimsoll rollout history` lists them."
        )
    if found.name == wanted:
        raise Refused(f"ModelService {obj.metadata.key} asks for revision {to_revision} already.")
    return found


def becoming(before: JsonObject, after: JsonObject) -> JsonObject:
    """The merge patch that makes one object of JSON another: what the other one lacks becomes null."""
    patch: JsonObject = {name: None for name in before if name not in after}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            patch[name] = becoming(was, value)
        else:
            patch[name] = value
    return patch


def run_status(asked: Asked, wait_seconds: float, output: str) -> int:
    """Say how far a rollout is; 0 when it is complete, 1 when it goes on or was given up, 2 when nobody can say."""
    word = ""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        status, told = asyncio.run(_status(asked, wait_seconds))
        word = str(told.get("reason", "NotYetDecided"))
        if output == "json":
            print_json(
                {"reason": word, "message": told.get("message", ""), "rollout": status.get("rollout", {})}
            )
        else:
            people().print(f"{coloured(word)} {escape(str(told.get('message', 'nothing was decided yet')))}")
    return 0 if word == "RolloutComplete" else 1


async def _status(asked: Asked, wait_seconds: float) -> tuple[JsonObject, JsonObject]:
    namespace, name = asked.key
    async with asked.store() as store:
        obj = await store.get(MODEL_SERVICE, name, namespace)
        if wait_seconds > 0.0 and not _settled(obj):
            watch = await store.watch(
                MODEL_SERVICE, namespace, resource_version=obj["metadata"]["resourceVersion"]
            )
            try:
                async with asyncio.timeout(wait_seconds):
                    while not watch.ended and not _settled(obj):
                        obj = _newest(watch.drain(), name, obj)
                        if not _settled(obj):
                            await watch.wait()
            except TimeoutError:
                pass
            finally:
                watch.close()
    return obj.get("status", {}), _progress(obj)


def _newest(events: Sequence[WatchEvent], name: str, obj: JsonObject) -> JsonObject:
    for event in events:
        if event.type is not EventType.BOOKMARK and event.object["metadata"]["name"] == name:
            obj = event.object
    return obj


def _progress(obj: JsonObject) -> JsonObject:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "Progressing"), {})


def _settled(obj: JsonObject) -> bool:
    """Whether the generation's rollout has ended, either way."""
    told = _progress(obj)
    answers = told.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
    return answers and (told.get("status") == "False" or told.get("reason") == "RolloutComplete")
