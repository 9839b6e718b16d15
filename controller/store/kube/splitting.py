"""Lists and streams taken apart without building the objects in them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from controller.store.errors import Unavailable
from controller.store.interface import EventType, ListResult, Resource


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class Frame(msgspec.Struct, frozen=True):
    """One line of a watch: its type, and the object as it came."""

    type: str
    object: msgspec.Raw


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class Versioned(msgspec.Struct, frozen=True):
    """The one thing a stream must know of each object."""

    metadata: _Version


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, read for its version; a frame of these two members and no other."""

    type: str
    object: Versioned


class Line(NamedTuple):
    """One line of a watch: what happened, which version it made, and the object as it came."""

    type: str
    version: str
    raw: bytes


_EVENTS = frozenset(kind.value for kind in EventType)
_FRAMES = msgspec.json.Decoder(Frame)
_TOLD = msgspec.json.Decoder(_Told)
_VERSIONS = msgspec.json.Decoder(Versioned)


def line_of(line: bytes) -> Line:
    """A line taken apart, walking over its object once. Raises `msgspec.DecodeError` for what is no line of a watch."""
    try:
        told = _TOLD.decode(line)
    except msgspec.ValidationError:
        return _slowly(line)
    head = b'{"type":"%s","object":' % told.type.encode()
    if not (line.startswith(head) and line.endswith(b"}")):
        return _slowly(line)
    # Two members, the first of them read: what is between is the second.
    return Line(told.type, told.object.metadata.resource_version, line[len(head) : -1])


def _slowly(line: bytes) -> Line:
    frame = _FRAMES.decode(line)
    raw = bytes(frame.object)
    version = _VERSIONS.decode(raw).metadata.resource_version if frame.type in _EVENTS else ""
    return Line(frame.type, version, raw)


_PAGES = msgspec.json.Decoder(_Page)
_SAYS_ITS_KIND = (b'{"apiVersion"', b'{"kind"')


def page_of(body: bytes, resource: Resource) -> ListResult:
    """One page of a list, each item with its kind and apiVersion (built-in kinds leave them out in lists).

    Raises `Unavailable` for a body that is no list: somebody else answered, or it was cut.
    """
    try:
        page = _PAGES.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"list {resource.qualified}: the answer is no list ({error})") from error
    prefix = f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
    items = tuple([_named(raw, prefix) for raw in page.items or ()])
    return ListResult(items, page.metadata.resource_version, page.metadata.continue_)


def _named(raw: msgspec.Raw, prefix: bytes) -> bytes:
    view = memoryview(raw)
    if bytes(view[:14]).startswith(_SAYS_ITS_KIND):
        return bytes(view)
    return b"".join((prefix, view[1:]))


class Lines:
    """Newline-delimited JSON out of chunks of any size: each byte is copied once, however long a line is."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes; blank ones are left out."""
        end = chunk.rfind(b"\n")
        if end < 0:
            self._parts.append(chunk)
            return []
        self._parts.append(chunk[:end])
        whole = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
        rest = chunk[end + 1 :]
        self._parts = [rest] if rest else []
        return [line for line in whole.split(b"\n") if line]

    @property
    def pending_bytes(self) -> int:
        """Bytes of the line that is not complete yet."""
        return sum(len(part) for part in self._parts)
