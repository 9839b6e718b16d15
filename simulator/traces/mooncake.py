"""Mooncake traces (Qin et al., FAST'25): JSON lines of timestamp [ms], input_length, output_length, hash_ids.

A line may have a `priority`; those published have none.

`hash_ids` name the prompt's blocks of 512 tokens; the last block may be part full.
"""

from __future__ import annotations

import msgspec

from simulator.traces.requests import TraceRequest, priority, tokens

BLOCK_TOKENS = 512


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line as it is in the file."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()
    priority: int = 0


_DECODER = msgspec.json.Decoder(Line)


def request(number: int, text: str) -> TraceRequest:
    """One line. Raises ValueError saying what is wrong with it."""
    try:
        line = _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"no request: {error}") from None
    most = -(-line.input_length // BLOCK_TOKENS)
    if len(line.hash_ids) > most:
        raise ValueError(f"{len(line.hash_ids)} hash_ids for {line.input_length} tokens, at most {most}")
    return TraceRequest(
        number,
        line.timestamp / 1_000.0,
        tokens(line.input_length, "input_length"),
        tokens(line.output_length, "output_length"),
        line.hash_ids,
        BLOCK_TOKENS if line.hash_ids else 0,
        priority=priority(line.priority, "priority"),
    )
