"""What goes into an engine and comes out of it: requests, events, refusals, load and phase integrals."""

import enum

import msgspec


class EventKind(enum.Enum):
    """What happened to a request inside an engine."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - a token of text, no secret
    FINISHED = "finished"
    FAILED = "failed"
    HANDED_OVER = "handed_over"


class EngineEvent(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened to a request, at the exact simulated second.

    ``tokens`` is the number of output tokens emitted so far: 1 at FIRST_TOKEN, the whole output at FINISHED,
    what had been emitted when it died at FAILED or left the batch at HANDED_OVER.
    """

    at_seconds: float
    kind: EventKind
    request_id: int
    tokens: int


class RefusalCode(enum.Enum):
    """Why an engine did not take a request."""

    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    TOO_LONG = "too_long"
    DRAINING = "draining"
    STOPPED = "stopped"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A request that an engine did not take, with a sentence that says why and what would help."""

    request_id: int
    code: RefusalCode
    message: str


class EngineLoad(msgspec.Struct, frozen=True, gc=False):
    """What an engine reports of itself at one instant.

    ``running`` sequences hold KV blocks, ``waiting`` ones hold none. ``outstanding_tokens`` are the prompt tokens
    still to prefill plus the output tokens still to emit, over running and waiting ones; ``generated_tokens`` the
    output tokens emitted since the start. ``head_of_line_seconds`` is how long the oldest request without a token
    has been here (0 without one), ``last_busy_seconds`` when a step last ran (the start, before the first). ``prefix_hit_tokens`` of
    prompts were found in the prefix cache since the start, ``prefill_chunks`` pieces of prompts computed.
    ``queued_tokens`` of KV cache are asked for by the waiting ones.
    """

    running: int
    waiting: int
    kv_free_tokens: int
    kv_capacity_tokens: int
    outstanding_tokens: int
    generated_tokens: int
    head_of_line_seconds: float
    last_busy_seconds: float
    preemptions: int
    draining: bool
    prefix_hit_tokens: int = 0
    prefill_chunks: int = 0
    queued_tokens: int = 0


class EnginePhases(msgspec.Struct, frozen=True, gc=False):
    """Integrals since the engine started; the difference of two readings describes the time between them.

    A step that carries prompt tokens counts as decode for as long as its decodes alone would have taken, and as
    prefill for the rest. ``decode_compute_seconds`` is the part of the decode time in which the arithmetic units
    would be busy (batch times the matmul time of a token); ``sequence_seconds`` is the integral of the batch of
    decoding sequences. The token counts grow at step boundaries.
    """

    prefill_seconds: float
    decode_seconds: float
    idle_seconds: float
    decode_compute_seconds: float
    sequence_seconds: float
    prefill_tokens: int
    decode_tokens: int

    @property
    def busy_seconds(self) -> float:
        """Seconds in which a step was running."""
        return self.prefill_seconds + self.decode_seconds


class Handover(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request on its way from one engine to another: what the next one must know to go on where this one stopped.

    ``prefix`` are the hashes of the prompt's full prefix blocks, first to last.
    """

    request_id: int
    prompt_tokens: int
    output_tokens: int
    generated_tokens: int
    arrived_seconds: float
    priority: int = 0
    prefix: tuple[int, ...] = ()

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV the next engine needs before it can go on."""
        return self.prompt_tokens + self.generated_tokens


class SequenceState(enum.Enum):
    """Where a sequence stands: not yet arrived, queued, its prompt or its output being worked on, out of the batch with
    its KV kept for another engine, or gone.
    """

    PENDING = 0
    WAITING = 1
    PREFILL = 2
    DECODE = 3
    HELD = 4
    GONE = 5


class Sequence:
    """One request inside an engine (mutable, private to the engines of this package).

    ``left`` prompt tokens are still to prefill behind ``offset`` done ones; after a preemption the tokens emitted
    so far are part of the prompt to compute again. While decoding, the output is complete when the engine's step
    counter reaches ``finish_tick``; ``joined_tick`` and ``context`` say with how long a context it joined.
    ``prefix`` hashes its prompt's full blocks: ``hits`` of them were found cached when it was last looked up, ``shared``
    are those it holds in the cache. ``reserved`` blocks were set aside before it came. It leaves the batch after its
    first token where ``hand_over`` is set.
    """

    __slots__ = (
        "arrived",
        "blocks",
        "cancelled",
        "context",
        "finish_tick",
        "generated",
        "hand_over",
        "hits",
        "joined_tick",
        "left",
        "offset",
        "order",
        "output",
        "prefix",
        "priority",
        "prompt",
        "request_id",
        "reserved",
        "shared",
        "state",
    )

    def __init__(
        self, request_id: int, prompt: int, output: int, arrived: float, priority: int, order: int
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.output = output
        self.arrived = arrived
        self.priority = priority
        self.order = order
        self.left = prompt
        self.offset = 0
        self.generated = 0
        self.blocks = 0
        self.context = 0
        self.joined_tick = 0
        self.finish_tick = 0
        self.cancelled = self.hand_over = False
        self.prefix: tuple[int, ...] = ()
        self.shared: list[object] | None = None
        self.hits = self.reserved = 0
        self.state = SequenceState.PENDING

    def rank(self) -> tuple[int, float, int]:
        """Place in the queue: higher priority first, then earlier arrival, then order of submission."""
        return (-self.priority, self.arrived, self.order)


def refuse(request_id: int, prompt_tokens: int, output_tokens: int, limit_tokens: int) -> Refusal:
    """Refusal of a request that is malformed, too long for ``limit_tokens``, or else here already."""
    if prompt_tokens < 1 or output_tokens < 0:
        message = (
            f"request {request_id} has {prompt_tokens} prompt and {output_tokens} output tokens; "
            "it needs at least one prompt token and no negative output"
        )
        return Refusal(request_id, RefusalCode.MALFORMED, message)
    if prompt_tokens + output_tokens > limit_tokens:
        message = (
            f"request {request_id} needs {prompt_tokens} prompt + {output_tokens} output tokens, but this engine "
            f"holds at most {limit_tokens}; shorten it or serve the model on more GPU memory"
        )
        return Refusal(request_id, RefusalCode.TOO_LONG, message)
    message = f"request {request_id} is already here; cancel it before you send it again"
    return Refusal(request_id, RefusalCode.DUPLICATE, message)


def refuse_stopped(request_id: int, stopped: bool) -> Refusal:
    """Refusal by an engine that was killed (``stopped``) or drains."""
    code = RefusalCode.STOPPED if stopped else RefusalCode.DRAINING
    message = (
        f"the engine is {code.value} and takes no new requests; send request {request_id} to another one"
    )
    return Refusal(request_id, code, message)
