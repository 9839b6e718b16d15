"""Manifests: files of objects, checked as the API server will check them, with file and line in every sentence.

What is wrong is found before anything is sent, all of it at once, and one bad object does not hide the good
ones beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from controller.resources import rules
from controller.resources.core import CORE_RESOURCES
from controller.resources.documents import Document, Fault, documents
from controller.resources.kinds import BY_KIND, KINDS
from controller.resources.podpart import UNSUPPORTED
from controller.resources.schema import schema_of
from controller.store.embedded.forms import METADATA_FIELDS, strange_metadata
from controller.store.embedded.metadata import metadata_faults
from controller.store.embedded.validation import Structural, json_type
from controller.store.embedded.wording import NOWHERE
from controller.store.interface import JsonObject, Resource, Store, StoreError

SUFFIXES = frozenset({".yaml", ".yml", ".json"})

_KNOWN: dict[str, Resource] = {kind.resource.kind: kind.resource for kind in KINDS} | {
    resource.kind: resource for resource in CORE_RESOURCES
}


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where, and a sentence that says what and what to do."""

    file: str
    line: int
    sentence: str

    def __str__(self) -> str:
        """`file:line: sentence`."""
        return f"{self.file}:{self.line}: {self.sentence}"


class ManifestError(ValueError):
    """Manifests that cannot be used; `problems` has all that is wrong with them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Manifest(msgspec.Struct, frozen=True):
    """One object as it was written (defaults not filled in), and where."""

    resource: Resource
    obj: JsonObject
    file: str
    line: int

    @property
    def name(self) -> str:
        """`Kind namespace/name`, for messages."""
        meta = self.obj["metadata"]
        where = f"{meta['namespace']}/" if meta.get("namespace") else ""
        return f"{self.resource.kind} {where}{meta.get('name', '')}"


def load(*paths: Path | str) -> list[Manifest]:
    """Every object of the files and folders given, in order of file and line.

    Raises `ManifestError` with everything that is wrong with any of them.
    """
    manifests, problems = read(*paths)
    if problems:
        raise ManifestError(problems)
    return manifests


def read(*paths: Path | str) -> tuple[list[Manifest], list[Problem]]:
    """The sound objects of the files and folders given, and what is wrong with the others."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            files = _files(Path(path))
        except OSError as error:
            problems.append(_unreadable(Path(path), error))
            continue
        for file in files:
            _read_file(file, manifests, problems)
    return _without_doubles(manifests, problems), problems


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise FileNotFoundError(f"the folder holds no manifest ({', '.join(sorted(SUFFIXES))})")
    return found


def _unreadable(path: Path, error: OSError) -> Problem:
    what = error.strerror or str(error)
    return Problem(str(path), 1, f"cannot be read: {what}; check the path and its permissions")


def _read_file(path: Path, manifests: list[Manifest], problems: list[Problem]) -> None:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.append(_unreadable(path, error))
    except UnicodeDecodeError as error:
        sentence = f"byte {error.start} is not UTF-8; save the file as UTF-8"
        problems.append(Problem(str(path), 1, sentence))
    else:
        found, wrong = parse(text, str(path))
        manifests += found
        problems += wrong


def parse(text: str, file: str = "manifest") -> tuple[list[Manifest], list[Problem]]:
    """The sound objects of a text, and what is wrong with the others."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    empty = True
    try:
        for document in documents(text):
            if document.value is None:
                continue
            empty = False
            _take(document, file, manifests, problems)
    except Fault as fault:
        problems.append(Problem(file, fault.line, fault.sentence))
        empty = False
    if empty:
        problems.append(Problem(file, 1, "holds no object; a manifest has apiVersion, kind and metadata"))
    return manifests, problems


def _take(document: Document, file: str, manifests: list[Manifest], problems: list[Problem]) -> None:
    obj = document.value
    if not isinstance(obj, dict):
        found = json_type(obj)
        sentence = f"an object with apiVersion, kind and metadata is expected here, not one of type {found}"
        problems.append(Problem(file, document.line, sentence))
        return
    resource = _resource(document, file, problems)
    if resource is None:
        return
    if not isinstance(obj.get("metadata"), dict):
        sentence = f"{resource.kind} has no metadata; give it at least metadata.name"
        problems.append(Problem(file, document.line_of("metadata"), sentence))
        return
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    manifest = Manifest(resource, obj, file, document.line)
    wrong = list(_faults(manifest, document))
    problems += wrong
    if not wrong:
        manifests.append(manifest)


def _resource(document: Document, file: str, problems: list[Problem]) -> Resource | None:
    kind, api_version = document.value.get("kind"), document.value.get("apiVersion")

    def refuse(field: str, sentence: str) -> None:
        problems.append(Problem(file, document.line_of(field), sentence))

    if not isinstance(kind, str) or not isinstance(api_version, str):
        refuse("kind", "an object needs the fields apiVersion and kind, both words")
        return None
    resource = _KNOWN.get(kind)
    if resource is None:
        ours = ", ".join(sorted(BY_KIND))
        refuse("kind", f"there is no kind {_cut(kind)!r} here{_nearest(kind, _KNOWN)}; ours are {ours}")
        return None
    if resource.api_version != api_version:
        wanted = resource.api_version
        refuse("apiVersion", f"{kind} is not served as {_cut(api_version)!r}; write apiVersion: {wanted}")
        return None
    return resource


def _faults(manifest: Manifest, document: Document) -> Iterable[Problem]:
    def problem(field: str, sentence: str) -> Problem:
        return Problem(manifest.file, document.line_of(field), f"{_cut(manifest.name)}: {sentence}")

    resource, obj = manifest.resource, manifest.obj
    for fault in metadata_faults(resource, obj["metadata"]):
        yield problem(fault.field, str(fault))
    if resource.kind not in BY_KIND:
        return
    structural = _structural(resource.kind)
    unknown = [*strange_metadata(obj["metadata"]), *structural.unknown(obj)]
    for path in unknown:
        yield problem(path, _unknown_field(resource.kind, path))
    filled = msgspec.json.decode(msgspec.json.encode(obj))
    structural.fill(filled)
    if not filled["metadata"].get("name"):
        filled["metadata"].pop("name", None)
    faults = structural.check(filled)
    for fault in faults:
        if fault.field != NOWHERE:
            yield problem(fault.field, str(fault))
    if not faults:
        for field, sentence in rules.broken(resource.kind, filled):
            yield problem(field, f"{field}: {sentence}")


@cache
def _structural(kind: str) -> Structural:
    return Structural(schema_of(kind))


def _unknown_field(kind: str, path: str) -> str:
    """The path of an undeclared field, and the declared one most like it, or what is there instead of it."""
    if path.startswith("spec.pod.") and path.split(".")[2].split("[", maxsplit=1)[0] in UNSUPPORTED:
        instead = UNSUPPORTED[path.split(".")[2].split("[", maxsplit=1)[0]]
        return f"{_cut(path)} of a pod is not supported, and no field of {kind}: {instead}"
    names = [part.split("[")[0] for part in path.split(".")]
    schema: JsonObject = schema_of(kind)
    if names[0] == "metadata":
        schema, names = {"properties": dict.fromkeys(METADATA_FIELDS)}, names[1:]
    for name in names[:-1]:
        schema = schema.get("properties", {}).get(name, {})
        schema = schema.get("items", schema)
    around = path.rpartition(".")[0]
    known = {f"{around}.{name}" if around else name for name in schema.get("properties", {})}
    listed = ", ".join(sorted(name.rpartition(".")[2] for name in known))
    hint = _nearest(path, known) or (f"; known here are {listed}" if listed else "")
    return f"{_cut(path)} is no field of {kind}{hint}"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:200], list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


def _without_doubles(manifests: list[Manifest], problems: list[Problem]) -> list[Manifest]:
    """The first of each object; a second one is a problem, since the order of application would decide."""
    first: dict[tuple[str, str, str], Manifest] = {}
    for manifest in manifests:
        meta = manifest.obj["metadata"]
        key = (manifest.resource.qualified, meta.get("namespace", ""), meta["name"])
        if key in first:
            before = first[key]
            sentence = f"{manifest.name} is given already in {before.file}:{before.line}; remove one"
            problems.append(Problem(manifest.file, manifest.line, sentence))
        else:
            first[key] = manifest
    return list(first.values())


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Namespaces first, then what belongs to the cluster, then the rest; otherwise as given."""

    def rank(manifest: Manifest) -> int:
        if manifest.resource.kind == "Namespace":
            return 0
        return 2 if manifest.resource.namespaced else 1

    return sorted(manifests, key=rank)


async def apply(
    store: Store, manifests: Iterable[Manifest], *, field_manager: str = "plimsoll", force: bool = True
) -> list[JsonObject]:
    """Apply every manifest server-side, in a sound order; the objects as the store keeps them.

    Raises `ManifestError` for what the store refuses, after the others were applied; other store errors
    (no answer) pass through.
    """
    applied: list[JsonObject] = []
    problems: list[Problem] = []
    for manifest in in_order(manifests):
        try:
            applied.append(
                await store.apply(manifest.resource, manifest.obj, field_manager=field_manager, force=force)
            )
        except StoreError as error:
            if error.code >= 429:
                raise
            problems.append(Problem(manifest.file, manifest.line, f"{manifest.name}: {error.message}"))
    if problems:
        raise ManifestError(problems)
    return applied


def as_object(manifest: Manifest) -> Any:
    """The manifest as the Python type of its kind; a dictionary for kinds that are not ours."""
    kind = BY_KIND.get(manifest.resource.kind)
    return msgspec.convert(manifest.obj, kind.type) if kind else manifest.obj
