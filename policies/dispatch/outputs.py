"""How long an answer will be, from what was seen: an arriving request only says how long it may become at most.

By class, the mean length of recent answers to prompts of the size. Prompts lie on the grid's input edges with hat weights
(`cluster.sizes`), as load does; each edge keeps a weight and a sum of tokens, and halves both when it has `MEMORY`, so that
what is old counts ever less, whatever the clock says. Until `ENOUGH` answers are known beside a size, the most that was asked
for is what is expected: full rows are then told early rather than late.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.sizes import hat

ENOUGH = 16.0
"""Answers that must be known near a prompt's size before their mean is believed."""

MEMORY = 512.0
"""Answers remembered per input edge, at which what is known there is halved."""


class Outputs:
    """Means of one class. Two that were told the same in the same order predict the same."""

    __slots__ = ("_edges", "_sums", "_weights")

    def __init__(self, input_edges: Sequence[float]) -> None:
        """Nothing was seen. `input_edges`: prompt tokens, rising."""
        self._edges = tuple(input_edges)
        self._weights = [0.0] * len(self._edges)
        self._sums = [0.0] * len(self._edges)

    def learn(self, prompt_tokens: int, output_tokens: int) -> None:
        """A request of a prompt of this size ended with so many tokens. Below a microsecond."""
        row, up = hat(self._edges, prompt_tokens)
        self._add(row, 1.0 - up, output_tokens)
        if up:
            self._add(row + 1, up, output_tokens)

    def _add(self, row: int, weight: float, tokens: int) -> None:
        self._weights[row] += weight
        self._sums[row] += weight * tokens
        if self._weights[row] > MEMORY:
            self._weights[row] *= 0.5
            self._sums[row] *= 0.5

    def expected(self, prompt_tokens: int, most_tokens: int) -> int:
        """Tokens to expect of an answer that may be `most_tokens` long, at least 1."""
        row, up = hat(self._edges, prompt_tokens)
        weight = (1.0 - up) * self._weights[row]
        total = (1.0 - up) * self._sums[row]
        if up:
            weight += up * self._weights[row + 1]
            total += up * self._sums[row + 1]
        if weight < ENOUGH:
            return most_tokens
        return min(most_tokens, max(1, round(total / weight)))
