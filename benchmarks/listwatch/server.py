"""HTTP/1.1 by hand, so that each byte of a fault is ours: requests in, lists and streams out."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from benchmarks.listwatch.collection import Change, Collection
from benchmarks.listwatch.faults import Answer, AnswerKind
from benchmarks.listwatch.lists import list_body, refusal
from benchmarks.listwatch.streams import Stream

LIST, WATCH = "list", "watch"

_TRUE = frozenset({"true", "True", "1"})


class Request(msgspec.Struct, frozen=True):
    """What was asked: which collection, and whether as a list or as a watch."""

    collection: Collection
    verb: str
    parameters: dict[str, str]
    whole: bool = False
    """A watch that begins with everything there is: a list, though it comes as a stream."""


class ListWatchServer:
    """Collections behind a port on loopback. Belongs to the event loop it is started in.

    `answers[verb, path]` are what becomes of the next requests, one each; `always[verb, path]` of all others. `asked`
    counts requests by (verb, path); a list counts once, whatever its pages. `happened` counts faults that took effect,
    and `lines` of watches. `held` sends the answers that wait for the test's word, `hung` cuts those that never come.
    """

    def __init__(self, collections: Iterable[Collection]) -> None:
        self.collections = {each.path: each for each in collections}
        self.answers: dict[tuple[str, str], deque[Answer]] = {}
        self.always: dict[tuple[str, str], Answer] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.happened: Counter[str] = Counter()
        self.held: list[Callable[[], None]] = []
        self.hung: list[Callable[[], None]] = []
        self.streams_lists = True
        self.on_request: Callable[[Request], None] = lambda _: None
        self.streams: list[Stream] = []
        self.endpoint = ""
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def start(self, context: ssl.SSLContext | None = None) -> str:
        """Listen on a free port of 127.0.0.1, under TLS where a context is given; returns the endpoint."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        return self.endpoint

    async def stop(self) -> None:
        """End all connections and stop listening."""
        for connection in tuple(self._connections):
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def tell(self, collection: Collection, change: Change) -> None:
        """Send a change to whoever watches its collection."""
        for stream in tuple(self.streams):
            if stream.collection is collection:
                stream.send(change)

    def bookmark(self, collection: Collection) -> None:
        """Send a bookmark to whoever watches a collection and asked for bookmarks."""
        for stream in tuple(self.streams):
            if stream.collection is collection:
                stream.bookmark()

    def streams_of(self, collection: Collection) -> list[Stream]:
        """Watches of a collection that are open."""
        return [stream for stream in self.streams if stream.collection is collection]

    # ------------------------------------------------------------------------------------------ answering

    def joined(self, connection: Connection) -> None:
        """A client connected."""
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        """A client went, or was cut off."""
        self._connections.discard(connection)
        self.streams = [each for each in self.streams if each.transport is not connection.transport]

    def answer(self, connection: Connection, target: str) -> None:
        """Answer one request, well or as was arranged."""
        parts = urlsplit(target)
        collection = self.collections.get(parts.path)
        if collection is None:
            connection.write(refusal(404, "the server could not find the requested resource"))
            return
        parameters = dict(parse_qsl(parts.query))
        watch = parameters.get("watch") in _TRUE
        whole = watch and parameters.get("sendInitialEvents") in _TRUE
        if whole and not self.streams_lists:
            connection.write(refusal(422, "sendInitialEvents is forbidden: the WatchList feature is off"))
            return
        verb = LIST if whole or not watch else WATCH
        request = Request(collection, verb, parameters, whole)
        if not parameters.get("continue"):
            self.asked[verb, collection.path] += 1
        self.on_request(request)
        arranged = self.answers.get((verb, collection.path))
        answer = arranged.popleft() if arranged else self.always.get((verb, collection.path))
        if answer is None:
            self._well(connection, request)
        else:
            self._spoil(connection, request, answer)

    def _spoil(self, connection: Connection, request: Request, answer: Answer) -> None:
        """Do what was arranged."""
        kind = answer.kind
        self.happened[f"{request.verb} {answer.code if kind is AnswerKind.REFUSE else kind}"] += 1
        match kind:
            case AnswerKind.REFUSE:
                connection.write(refusal(answer.code, "arranged", answer.retry_after_seconds))
            case AnswerKind.SILENT:
                self.hung.append(connection.abort)
            case AnswerKind.DROP:
                connection.abort()
            case AnswerKind.ENDS | AnswerKind.GONE_INSIDE:
                stream = self._open(connection, request)
                if kind is AnswerKind.GONE_INSIDE:
                    stream.gone()
                stream.end()
            case AnswerKind.SLOW:
                self._later(self._listed(connection, request), answer.seconds)
            case AnswerKind.CUT:
                self._listed(connection, request, cut=True)()
            case AnswerKind.STALE:
                self._listed(connection, request, stale=True)()

    def _later(self, send: Callable[[], None], seconds: float) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, send)
        else:
            self.held.append(send)

    def _listed(
        self, connection: Connection, request: Request, *, stale: bool = False, cut: bool = False
    ) -> Callable[[], None]:
        """What sends a list, as a page or as a stream, of what is true now."""
        collection = request.collection
        if not request.whole:
            body = list_body(collection, request.parameters, stale=stale)

            def send_page() -> None:
                connection.write(body[: len(body) // 2] if cut else body)
                if cut:
                    connection.abort()

            return send_page
        snapshot = (collection.former if stale else None) or collection.snapshot()

        def send_stream() -> None:
            stream = self._open(connection, request)
            stream.fill(snapshot, cut=cut)

        return send_stream

    def _well(self, connection: Connection, request: Request) -> None:
        if request.verb == LIST:
            self._listed(connection, request)()
            return
        stream = self._open(connection, request)
        stream.catch_up(int(request.parameters.get("resourceVersion") or 0))

    def _open(self, connection: Connection, request: Request) -> Stream:
        bookmarks = request.parameters.get("allowWatchBookmarks") in _TRUE
        stream = Stream(
            connection.transport, request.collection, self._over, self.happened, bookmarks=bookmarks
        )
        if not connection.transport.is_closing():  # the client may have gone while its answer was held back
            self.streams.append(stream)
        stream.begin()
        return stream

    def _over(self, stream: Stream) -> None:
        self.streams = [each for each in self.streams if each is not stream]


class Connection(asyncio.Protocol):
    """One client's connection: GET after GET."""

    def __init__(self, server: ListWatchServer) -> None:
        self._server = server
        self._received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        self.transport = cast("asyncio.Transport", transport)
        self._server.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client is gone."""
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        """Take in requests; none of them has a body."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            target = head.split(b"\r\n", 1)[0].split(b" ")[1].decode()
            self._server.answer(self, target)

    def write(self, data: bytes) -> None:
        """Send bytes, unless the client went meanwhile."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Send what was written, and end without a word."""
        self.transport.close()
