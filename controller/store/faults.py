"""A store that fails as real ones do, on purpose: seeded, driven by the injected clock, counted.

Two stores to put in front of any other: `FaultyStore` answers wrongly or not at all, `KillableStore` ends
the process that uses it before or after its k-th mutating call.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from controller.store.errors import Conflict, Gone, StoreError, TooManyRequests, Unavailable
from controller.store.interface import Store, Watch, WatchEvent
from controller.store.interposed import InterposedStore, Request
from runtime.clock import Clock

T = TypeVar("T")

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class FaultRates(msgspec.Struct, frozen=True, kw_only=True):
    """How often each fault happens, as a probability for each request or each drained batch of events.

    Requests: `unavailable` (no answer, nothing done), `lost_answer` (a write is done and its answer lost),
    `throttled` (429 with `retry_after_seconds`), `conflict` (409 on any write but create), `gone` (410 on
    list pages and watches), `stale` (a list answered as it was last time, by a server that lags). Streams: `cut` (the connection breaks and what was in flight is lost),
    `delayed` (events come `delay_seconds` late, in order), `duplicated` (events come twice, also late),
    `silent` (half open: no event and no error ever again).
    """

    unavailable: float = 0.0
    lost_answer: float = 0.0
    throttled: float = 0.0
    conflict: float = 0.0
    gone: float = 0.0
    stale: float = 0.0
    cut: float = 0.0
    delayed: float = 0.0
    duplicated: float = 0.0
    silent: float = 0.0
    delay_seconds: float = 2.0
    retry_after_seconds: float = 3.0


CALM = FaultRates()


class FaultyStore(InterposedStore):
    """Disturbs requests and streams of the inner store at `rates`, and on command.

    `counts` says how often each fault happened.
    """

    def __init__(self, inner: Store, clock: Clock, *, seed: int = 0, rates: FaultRates = CALM) -> None:
        super().__init__(inner)
        self.rates = rates
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._random = random.Random(seed)
        self._outage_until = float("-inf")
        self._conflicts_left = 0
        self._throttle_until = float("-inf")
        self._streams: list[FaultyWatch] = []
        self._answers: dict[Request, Any] = {}

    # ------------------------------------------------------------------------------------------- commands

    def outage(self, seconds: float = 60.0) -> None:
        """From now on, and for so long, no request is answered; open streams break."""
        self._outage_until = self._clock.monotonic() + seconds
        self.cut()

    def conflict_storm(self, writes: int) -> None:
        """Refuse the next so many writes (but creations) with 409."""
        self._conflicts_left = writes

    def throttle(self, seconds: float) -> None:
        """Answer 429 for so long, with the time that is left as Retry-After."""
        self._throttle_until = self._clock.monotonic() + seconds

    def cut(self, error: StoreError | None = None) -> None:
        """Break every open stream: what it has not delivered yet is lost with it."""
        for stream in self._streams:
            stream.cut(error or Unavailable("the connection was reset"))
        self._streams.clear()

    def expire(self) -> None:
        """End every open stream with 410, as a compaction under a slow watch does."""
        self.cut(Gone("The resourceVersion for the provided watch is too old."))

    def silence(self) -> None:
        """Leave every open stream half open."""
        for stream in self._streams:
            stream.silence()

    @property
    def out(self) -> bool:
        """True during an outage."""
        return self._clock.monotonic() < self._outage_until

    # ------------------------------------------------------------------------------------------- requests

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Refuse, lose or pass on one request."""
        self._refuse(request)
        result = await answer()
        if request.verb == "list":
            return self._maybe_stale(request, result)
        if request.mutating and self._happens("lost_answer", self.rates.lost_answer):
            raise Unavailable(f"the answer to {request} was lost")
        return result

    def _maybe_stale(self, request: Request, answer: T) -> T:
        """Only lists in one page are given again: pages of two answers would not fit together."""
        before: T | None = self._answers.get(request)
        if getattr(answer, "continue_token", ""):
            return answer
        if before is not None and self._happens("stale", self.rates.stale):
            return before
        self._answers[request] = answer
        return answer

    def _refuse(self, request: Request) -> None:
        now = self._clock.monotonic()
        if self.out:
            self.counts["outage"] += 1
            raise Unavailable(f"no answer to {request}: connection refused")
        if now < self._throttle_until:
            self.counts["throttled"] += 1
            raise TooManyRequests("too many requests, please try again later", self._throttle_until - now)
        if self._happens("unavailable", self.rates.unavailable):
            raise Unavailable(f"no answer to {request}: the connection was reset")
        if self._happens("throttled", self.rates.throttled):
            raise TooManyRequests("too many requests, please try again later", self.rates.retry_after_seconds)
        if request.verb in {"list", "watch"} and self._happens("gone", self.rates.gone):
            raise Gone("The resourceVersion for the provided list or watch is too old.")
        if request.mutating and request.verb != "create":
            self._conflict(request)

    def _conflict(self, request: Request) -> None:
        stormy = self._conflicts_left > 0
        self._conflicts_left -= stormy
        if stormy or self._happens("conflict", self.rates.conflict):
            self.counts["storm"] += stormy
            name = request.resource.qualified
            raise Conflict(f'Operation cannot be fulfilled on {name} "{request.name}": {_MODIFIED}')

    def _happens(self, fault: str, rate: float) -> bool:
        if rate <= 0.0 or self._random.random() >= rate:
            return False
        self.counts[fault] += 1
        return True

    # -------------------------------------------------------------------------------------------- streams

    def watching(self, request: Request, watch: Watch) -> Watch:
        """The inner stream with this store's faults on it."""
        del request
        self._streams = [stream for stream in self._streams if not stream.ended]
        stream = FaultyWatch(watch, self._clock, self._disturb)
        self._streams.append(stream)
        return stream

    def _disturb(self, stream: FaultyWatch, events: list[WatchEvent]) -> list[WatchEvent]:
        """Decide what becomes of a batch that has just arrived."""
        rates = self.rates
        if self._happens("silent", rates.silent):
            stream.silence()
            return []
        if events and self._happens("duplicated", rates.duplicated):
            again = [self._random.choice(events)] if self._random.random() < 0.5 else events
            events = [*events, *again]
        if self._happens("delayed", rates.delayed):
            stream.delay(rates.delay_seconds)
        fault = self._random.random()
        if rates.cut and fault < rates.cut:
            self.counts["cut"] += 1
            stream.cut(Unavailable("the stream was cut half way"))
            return events[: self._random.randint(0, len(events))]
        if rates.gone and fault > 1.0 - rates.gone:
            self.counts["gone"] += 1
            stream.cut(Gone("The resourceVersion for the provided watch is too old."))
        return events


class FaultyWatch:
    """A stream whose deliveries can be late, doubled, cut short or withheld for ever."""

    def __init__(
        self,
        inner: Watch,
        clock: Clock,
        disturb: Callable[[FaultyWatch, list[WatchEvent]], list[WatchEvent]],
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._disturb = disturb
        self._late: deque[tuple[float, WatchEvent]] = deque()
        self._ready_at = float("-inf")
        self._silent = False
        self._error: StoreError | None = None
        self._over = False

    @property
    def ended(self) -> bool:
        """True when the stream is over and drained."""
        if self._over:
            return self._error is None and not self._late
        return not self._silent and self._inner.ended and not self._late

    def delay(self, seconds: float) -> None:
        """Deliver what arrives from now on so much later."""
        self._ready_at = self._clock.monotonic() + seconds

    def silence(self) -> None:
        """Deliver nothing any more, and no error either."""
        self._silent = True

    def cut(self, error: StoreError) -> None:
        """End the stream; what has not been delivered is lost."""
        if not self._over and not self._silent:
            self._over = True
            self._error = error
            self._late.clear()
            self._inner.close()

    def drain(self) -> Sequence[WatchEvent]:
        """See `Watch.drain`."""
        if self._silent:
            return []
        now = self._clock.monotonic()
        if self._over:
            return self._last_words(now)
        self._late.extend((max(now, self._ready_at), event) for event in self._inner.drain())
        events = self._due(now)
        return self._disturb(self, events)

    def _due(self, now: float) -> list[WatchEvent]:
        events: list[WatchEvent] = []
        while self._late and self._late[0][0] <= now:
            events.append(self._late.popleft()[1])
        return events

    def _last_words(self, now: float) -> list[WatchEvent]:
        events = self._due(now)
        if not events and self._error is not None:
            error, self._error = self._error, None
            raise error
        return events

    async def wait(self) -> None:
        """See `Watch.wait`; a silent stream waits for ever, as a half-open connection does."""
        if not self._over:
            await self._inner.wait()

    def close(self) -> None:
        """See `Watch.close`."""
        self._over = True
        self._error = None
        self._late.clear()
        self._inner.close()


class Killed(BaseException):
    """The process using the store ends here. Derived from BaseException so that no handler survives it."""


class CrashPoint(msgspec.Struct, frozen=True):
    """Die `when` the `call`-th mutating request (from 1) is sent: before it, or after it was done.

    `late`: before it, but the request is on its way all the same, and arrives when nobody reckons with it
    (`KillableStore.late`).
    """

    call: int
    when: Literal["before", "after", "late"]


class KillableStore(InterposedStore):
    """Numbers mutating requests and kills its user at one of them; the dead can send nothing more.

    `mutations` lists what was sent, in order: its length without a crash point is a scenario's K.
    """

    def __init__(self, inner: Store, crash: CrashPoint | None = None) -> None:
        super().__init__(inner)
        self.mutations: list[Request] = []
        self.dead = False
        self.late: Callable[[], Awaitable[Any]] | None = None
        """What is on its way to the inner store still, sent by the dead."""
        self._crash = crash

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Pass one request on, unless the user is dead or dies of it."""
        if self.dead:
            raise Killed(f"killed before: {request} is never sent")
        if not request.mutating:
            return await answer()
        self.mutations.append(request)
        hit = self._crash is not None and self._crash.call == len(self.mutations)
        if hit and self._crash is not None and self._crash.when != "after":
            self.late = answer if self._crash.when == "late" else None
            self._die(request)
        try:
            return await answer()
        finally:
            if hit:
                self._die(request)

    def _die(self, request: Request) -> None:
        self.dead = True
        when = self._crash.when if self._crash else "at"
        raise Killed(f"killed {when} mutating call {len(self.mutations)}: {request}")
