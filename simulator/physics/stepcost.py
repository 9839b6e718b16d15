"""Coefficients of an engine's step time: what every cost model, computed or measured, comes down to."""

from __future__ import annotations

import msgspec


class StepCost(msgspec.Struct, frozen=True, gc=False):
    """Coefficients of the step time, clock and node speed already in them; all in seconds (per unit).

    ``matmul`` and ``comm_token`` are per token of the step, ``kv`` per context token read, ``attention`` per
    attention pair, ``per_sequence`` per decoding sequence; ``fixed`` holds launch time and link latency. What a measured
    cost has and the roofline does not: ``prompt_fixed`` comes on top of a step that works on prompts, ``decode_tokens`` is
    how much of a prompt's token a decoded one costs in arithmetic, and with ``from_batch`` decoding sequences or more
    ``beyond`` holds instead (engines change kernels with the batch).
    """

    weights: float
    matmul: float
    kv: float
    attention: float
    comm_token: float
    fixed: float
    per_sequence: float
    prompt_fixed: float = 0.0
    decode_tokens: float = 1.0
    from_batch: int = 0
    beyond: StepCost | None = None

    def at(self, batch: int) -> StepCost:
        """The coefficients that hold for steps with ``batch`` decoding sequences."""
        return self if self.beyond is None or batch < self.from_batch else self.beyond

    def seconds(self, batch: int, prefill_tokens: int, context_tokens: int, attention_pairs: float) -> float:
        """Seconds of one step; contexts of the ``batch`` decoding sequences *sum* to ``context_tokens``."""
        return Pace(self).seconds(batch, prefill_tokens, context_tokens, attention_pairs)

    def run_seconds(self, batch: int, context_tokens: int, steps: int) -> float:
        """Seconds of ``steps`` decode steps in a row: an arithmetic series, each step reads ``batch`` more."""
        first = self.seconds(batch, 0, context_tokens, 0.0)
        return steps * (first + 0.5 * self.kv * batch * (steps - 1))

    def slowed(self, compute: float, bandwidth: float, speed: float) -> StepCost:
        """The cost when compute and bandwidth run at these fractions, and the whole node at ``speed``."""
        return StepCost(
            weights=self.weights / bandwidth / speed,
            matmul=self.matmul / compute / speed,
            kv=self.kv / bandwidth / speed,
            attention=self.attention / compute / speed,
            comm_token=self.comm_token / speed,
            fixed=self.fixed / speed,
            per_sequence=self.per_sequence / speed,
            prompt_fixed=self.prompt_fixed / speed,
            decode_tokens=self.decode_tokens,
            from_batch=self.from_batch,
            beyond=self.beyond.slowed(compute, bandwidth, speed) if self.beyond is not None else None,
        )


class Pace:
    """A `StepCost` in plain numbers, for who asks at every step."""

    __slots__ = (
        "_beyond", "_comm_token", "_decode_tokens", "_fixed", "_from_batch", "_per_sequence", "_prompt_fixed", "_weights",
        "attention", "cost", "kv", "matmul",
    )  # fmt: skip

    def __init__(self, cost: StepCost) -> None:
        self.cost = cost
        self.matmul, self.kv, self.attention = cost.matmul, cost.kv, cost.attention
        self._weights, self._comm_token, self._fixed = cost.weights, cost.comm_token, cost.fixed
        self._per_sequence, self._prompt_fixed = cost.per_sequence, cost.prompt_fixed
        self._decode_tokens, self._from_batch = cost.decode_tokens, cost.from_batch
        self._beyond = Pace(cost.beyond) if cost.beyond is not None else None

    def at(self, batch: int) -> Pace:
        """What holds for steps with ``batch`` decoding sequences."""
        return self if self._beyond is None or batch < self._from_batch else self._beyond

    def seconds(self, batch: int, prefill_tokens: int, context_tokens: int, attention_pairs: float) -> float:
        """Seconds of one step, as `StepCost.seconds` tells them: this is the formula."""
        tokens = self._decode_tokens * batch + prefill_tokens
        weights, matmul = self._weights, self.matmul * tokens
        return (
            (max(weights, matmul))
            + self.kv * context_tokens
            + self.attention * attention_pairs
            + self._comm_token * tokens
            + self._fixed
            + self._per_sequence * batch
            + (self._prompt_fixed if prefill_tokens else 0.0)
        )
