"""All engines of one node behind one stream per gateway: requests in, events out, nothing kept twice.

No task and no clock in here: `accept` takes a frame in, `advance_to` lives through time and gives one frame for
each stream. The servicer moves the frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.engine.adapter import FAILED, FINISHED, FIRST_TOKEN, EngineAdapter
from wire import engine_pb2 as pb

_KINDS = {
    FIRST_TOKEN: pb.ENGINE_EVENT_KIND_FIRST_TOKEN,
    FINISHED: pb.ENGINE_EVENT_KIND_FINISHED,
    FAILED: pb.ENGINE_EVENT_KIND_FAILED,
}
OPEN_LIMIT = 200_000
"""Requests that one node keeps open at most; more are refused."""


@dataclass(slots=True, eq=False)
class EngineStream:
    """One gateway's stream. `tick` and `until_seconds` are those of its newest frame; `requests` its open ones."""

    gateway: str
    tick: int = 0
    until_seconds: float = 0.0
    sequence: int = 0
    events: list[pb.EngineEvent] = field(default_factory=list)
    requests: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Open:
    stream: EngineStream
    request_id: int
    epoch: int
    instance: str


@dataclass(slots=True, eq=False)
class _Hosted:
    engine: EngineAdapter
    ready: bool
    busy: dict[int, _Open] = field(default_factory=dict)


class EngineHost:
    """Engines of one node, by replica name, and who asked them for what."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._engines: dict[str, _Hosted] = {}
        self._streams: list[EngineStream] = []
        self._next_id = 1
        self._open = 0
        self.accepted = 0
        self.refused = 0

    @property
    def open_requests(self) -> int:
        """Requests that engines of this node work on."""
        return self._open

    @property
    def streams(self) -> tuple[EngineStream, ...]:
        """Gateways' streams, in order of their coming."""
        return tuple(self._streams)

    # ----------------------------------------------------------------------------------------- engines

    def add(self, name: str, engine: EngineAdapter, *, ready: bool = True) -> None:
        """Serve an engine under its replica's name. ValueError when the name is taken."""
        if name in self._engines:
            raise ValueError(
                f"Node {self.node} already serves an engine named {name!r}; remove that one first."
            )
        self._engines[name] = _Hosted(engine, ready)

    def set_ready(self, name: str, ready: bool) -> None:
        """Whether gateways may send new requests to it. KeyError when it is not here."""
        self._engines[name].ready = ready

    def remove(self, name: str, at_seconds: float, why: str = "the engine was stopped") -> int:
        """Serve an engine no more; what it had open fails. Returns how many. KeyError when it is not here."""
        hosted = self._engines.pop(name)
        for local, entry in hosted.busy.items():
            hosted.engine.cancel(local)
            self._forget(entry)
            self._tell(entry, pb.ENGINE_EVENT_KIND_FAILED, at_seconds, message=why)
        return len(hosted.busy)

    def engines(self) -> tuple[str, ...]:
        """Names of the engines served, sorted."""
        return tuple(sorted(self._engines))

    # ----------------------------------------------------------------------------------------- streams

    def open_stream(self, gateway: str) -> EngineStream:
        """A gateway has dialled."""
        stream = EngineStream(gateway)
        self._streams.append(stream)
        return stream

    def close_stream(self, stream: EngineStream) -> int:
        """A gateway is gone: nobody waits for its requests any more. Returns how many were dropped."""
        if stream not in self._streams:
            return 0
        self._streams.remove(stream)
        dropped = 0
        for hosted in self._engines.values():
            for local in [local for local, entry in hosted.busy.items() if entry.stream is stream]:
                hosted.engine.cancel(local)
                self._forget(hosted.busy.pop(local))
                dropped += 1
        return dropped

    def accept(self, stream: EngineStream, frame: pb.GatewayFrame) -> None:
        """Take a frame in: cancellations first, then submissions, which join their engine at their own time."""
        stream.tick = max(stream.tick, frame.tick)
        stream.until_seconds = max(stream.until_seconds, frame.until_seconds)
        for cancel in frame.cancels:
            self._cancel(stream, cancel)
        for submission in frame.submissions:
            self._submit(stream, submission)

    def _submit(self, stream: EngineStream, asked: pb.Submission) -> None:
        entry = _Open(stream, asked.request_id, asked.epoch, asked.instance)
        hosted = self._engines.get(asked.instance)
        local = self._next_id
        self._next_id += 1
        if hosted is None:
            why = f"Node {self.node} serves no engine {asked.instance!r}."
        elif not hosted.ready:
            why = f"Engine {asked.instance!r} is not ready."
        elif self._open >= OPEN_LIMIT:
            why = f"Node {self.node} has {self._open} requests open, its limit."
        elif (asked.request_id, asked.epoch) in stream.requests:
            why = f"Request {asked.request_id} of epoch {asked.epoch} is already here."
        else:
            refusal = hosted.engine.submit(
                local, asked.prompt_tokens, asked.output_tokens, asked.submitted_seconds, asked.priority
            )
            if refusal is None:
                hosted.busy[local] = entry
                stream.requests[asked.request_id, asked.epoch] = local
                self._open += 1
                self.accepted += 1
                return
            why = refusal.message
        self.refused += 1
        self._tell(entry, pb.ENGINE_EVENT_KIND_REFUSED, asked.submitted_seconds, message=why)

    def _cancel(self, stream: EngineStream, asked: pb.Cancellation) -> None:
        hosted = self._engines.get(asked.instance)
        local = stream.requests.get((asked.request_id, asked.epoch))
        if hosted is not None and local is not None and local in hosted.busy:
            hosted.engine.cancel(local)
            self._forget(hosted.busy.pop(local))

    # -------------------------------------------------------------------------------------------- time

    def advance_to(self, until_seconds: float) -> None:
        """Let every engine live up to and including a time; its events wait for their streams' next frames."""
        for name in sorted(self._engines):
            hosted = self._engines[name]
            for event in hosted.engine.advance_to(until_seconds):
                entry = hosted.busy.get(event.request_id)
                if entry is None:
                    continue
                word = str(event.kind.value)
                if word != FIRST_TOKEN:
                    del hosted.busy[event.request_id]
                    self._forget(entry)
                self._tell(entry, _KINDS[word], event.at_seconds, event.tokens)

    def frame(self, stream: EngineStream, observed_seconds: float) -> pb.EngineFrame:
        """The stream's next frame: its events in order of time, and the load of all engines of the node."""
        stream.sequence += 1
        events, stream.events = stream.events, []
        events.sort(key=_event_order)
        frame = pb.EngineFrame(
            tick=stream.tick,
            sequence=stream.sequence,
            node=self.node,
            observed_seconds=observed_seconds,
            events=events,
        )
        for name in sorted(self._engines):
            hosted = self._engines[name]
            load = hosted.engine.load()
            frame.instances.add(
                name=name,
                running=load.running,
                waiting=load.waiting,
                kv_free_tokens=max(0, load.kv_free_tokens),
                kv_capacity_tokens=load.kv_capacity_tokens,
                ready=hosted.ready,
            )
        return frame

    def _forget(self, entry: _Open) -> None:
        del entry.stream.requests[entry.request_id, entry.epoch]
        self._open -= 1

    def _tell(
        self, entry: _Open, kind: pb.EngineEventKind, at_seconds: float, tokens: int = 0, message: str = ""
    ) -> None:
        entry.stream.events.append(
            pb.EngineEvent(
                request_id=entry.request_id,
                instance=entry.instance,
                kind=kind,
                at_seconds=at_seconds,
                tokens=tokens,
                epoch=entry.epoch,
                message=message,
            )
        )


def _event_order(event: pb.EngineEvent) -> tuple[float, int, int]:
    """By time; a request's first token before its end."""
    return event.at_seconds, event.request_id, event.kind
