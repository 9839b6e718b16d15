"""`plimsoll get`, `apply`, `delete`, `scale`: a hand on a running operator's objects, where there is no kubectl."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.live import Live
from rich.markup import escape

from console.reaching import Reach, kind_named, split
from console.tables import table_of
from console.telling import Refused, chosen, one_sentence, people, print_json
from controller.resources.manifests import Manifest, ManifestError, Problem, in_order, load, parse
from controller.store.errors import NotFound, StoreError
from controller.store.interface import EventType, JsonObject, Resource
from controller.store.remote import RemoteStore
from runtime.clock import WallClock

MANAGER = "plimsoll-cli"
FORMATS = ("table", "wide", "json", "yaml")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll get` was asked."""

    kind: str
    name: str = ""
    namespace: str = ""
    selector: str = ""
    output: str = "table"
    watch: bool = False


def run_get(question: Question, reach: Reach) -> int:
    """Show objects; 0, or 2 when there is no such kind, object or operator."""
    with one_sentence():
        chosen("output", question.output, FORMATS)
        if "/" in question.kind and not question.name:  # as `explain` is asked
            kind, _, name = question.kind.partition("/")
            question = msgspec.structs.replace(question, kind=kind, name=name)
        resource = kind_named(question.kind)
        if question.watch and question.output not in {"table", "wide"}:
            raise Refused("--watch draws a table: leave it out for json and yaml.")
        asyncio.run(_get(question, resource, reach))
    return 0


async def _get(question: Question, resource: Resource, reach: Reach) -> None:
    async with reach.store() as store:
        if question.name:
            namespace, name = split(question.name, resource, question.namespace)
            found = [await store.get(resource, name, namespace)]
            _show(question, resource, found, single=True)
        elif question.watch:
            await _follow(question, resource, store)
        else:
            listed = await store.list(resource, question.namespace, label_selector=question.selector)
            found = sorted(
                listed.items, key=lambda obj: str(obj.get("lastTimestamp", ""))
            )  # events; others stay
            _show(question, resource, found, single=False)


def _show(question: Question, resource: Resource, objects: list[JsonObject], *, single: bool) -> None:
    body: Any = objects[0] if single else {"apiVersion": "v1", "kind": "List", "items": objects}
    if question.output == "json":
        print_json(body)
    elif question.output == "yaml":
        sys.stdout.write(yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    elif not objects:
        where = f" in namespace {question.namespace}" if question.namespace else ""
        people().print(f"There are no {resource.plural}{where}.")
    else:
        people().print(table_of(resource, objects, WallClock().now(), wide=question.output == "wide"))


async def _follow(question: Question, resource: Resource, store: RemoteStore) -> None:
    """A table that follows the store, until it is interrupted."""
    clock = WallClock()
    objects: dict[tuple[str, str], JsonObject] = {}
    watch = await store.watch(
        resource, question.namespace, resource_version="", label_selector=question.selector
    )
    with Live(console=people(), auto_refresh=False) as live:
        while not watch.ended:
            for event in watch.drain():
                if event.type is EventType.BOOKMARK:
                    continue
                meta = event.object["metadata"]
                key = (meta.get("namespace", ""), meta["name"])
                if event.type is EventType.DELETED:
                    objects.pop(key, None)
                else:
                    objects[key] = event.object
            rows = [objects[key] for key in sorted(objects)]
            live.update(table_of(resource, rows, clock.now(), wide=question.output == "wide"), refresh=True)
            await watch.wait()


def run_apply(files: list[Path], force: bool, output: str, reach: Reach) -> int:
    """Apply manifests; 0, 1 when the store refused some of them, 2 when nothing could be sent."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        manifests = _manifests(files)
        done, problems = asyncio.run(_apply(manifests, force, reach))
        if output == "json":
            print_json({"applied": done, "problems": [str(problem) for problem in problems]})
        else:
            for each in done:
                colour = {"created": "green", "configured": "yellow"}.get(each["result"], "dim")
                people().print(f"{escape(each['object'])} [{colour}]{each['result']}[/{colour}]")
        if problems:
            raise ManifestError(problems)
    return 0


def _manifests(files: list[Path]) -> list[Manifest]:
    """What the files hold; `-` is standard input."""
    named = [file for file in files if str(file) != "-"]
    manifests = load(*named) if named else []
    if len(named) < len(files):
        found, problems = parse(sys.stdin.read(), "standard input")
        if problems:
            raise ManifestError(problems)
        manifests += found
    return manifests


async def _apply(
    manifests: list[Manifest], force: bool, reach: Reach
) -> tuple[list[dict[str, str]], list[Problem]]:
    done: list[dict[str, str]] = []
    problems: list[Problem] = []
    async with reach.store() as store:
        for manifest in in_order(manifests):
            meta = manifest.obj["metadata"]
            try:
                before = await _version(store, manifest.resource, meta)
                made = await store.apply(manifest.resource, manifest.obj, field_manager=MANAGER, force=force)
            except StoreError as error:
                if error.code >= 429:
                    raise
                problems.append(Problem(manifest.file, manifest.line, f"{manifest.name}: {error.message}"))
                continue
            same = before == made["metadata"]["resourceVersion"]
            result = "created" if not before else "unchanged" if same else "configured"
            done.append({"object": manifest.name, "result": result})
    return done, problems


async def _version(store: RemoteStore, resource: Resource, meta: JsonObject) -> str:
    """The object's version now, empty when it is not there."""
    try:
        found = await store.get(resource, meta["name"], meta.get("namespace", ""))
    except NotFound:
        return ""
    version: str = found["metadata"]["resourceVersion"]
    return version


def run_delete(kind: str, name: str, namespace: str, output: str, reach: Reach) -> int:
    """Ask for an object's deletion; what it owns goes with it."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        resource = kind_named(kind)
        where, what = split(name, resource, namespace)

        async def delete() -> None:
            async with reach.store() as store:
                await store.delete(resource, what, where)

        asyncio.run(delete())
        told = f"{resource.kind} {f'{where}/' if where else ''}{what}"
        if output == "json":
            print_json({"object": told, "result": "deleted"})
        else:
            people().print(f"{escape(told)} deleted")
    return 0


def run_scale(kind: str, name: str, replicas: int, namespace: str, output: str, reach: Reach) -> int:
    """Set `spec.replicas` through the scale subresource, and say what that means in the object's mode."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        resource = kind_named(kind)
        where, what = split(name, resource, namespace)
        before, obj = asyncio.run(_scale(resource, what, where, replicas, reach))
        mode = obj.get("spec", {}).get("mode", "")
        told = f"{resource.kind} {where}/{what}"
        if output == "json":
            print_json({"object": told, "before": before, "replicas": replicas, "mode": mode})
        else:
            people().print(
                f"{escape(told)}: {before} → [bold]{replicas}[/bold] units of its reference variant"
            )
            if mode == "Auto":
                people().print("[dim]In mode Auto this is a floor: the operator may choose more.[/dim]")
    return 0


async def _scale(
    resource: Resource, name: str, namespace: str, replicas: int, reach: Reach
) -> tuple[int, JsonObject]:
    async with reach.store() as store:
        before = await store.get_scale(resource, name, namespace)
        await store.put_scale(resource, name, namespace, replicas=replicas, field_manager=MANAGER)
        return before.spec_replicas, await store.get(resource, name, namespace)
