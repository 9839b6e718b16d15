"""How long answers become beside what was asked for: load is counted when a request arrives, and then only the most is known.

Of each cell of the histogram (prompt, most that may be answered) it is kept which share of the requests ended before that, and at
which lengths; both by the same hat weights as arrivals are counted with. So, when all that arrived has ended, the load is exactly
the histogram of what was really generated; and where all is generated that is asked for, nothing changes at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.sizes import hat
from policies.dispatch.outputs import ENOUGH, MEMORY

Floats = NDArray[np.float64]


class AnswerLengths:
    """Of one class. Until `enough` answers are known of a cell its requests count as long as they may become; at `MEMORY` what
    is known of it is halved, so that what is old fades.
    """

    __slots__ = ("_enough", "_inputs", "_known", "_outputs", "_shorter")

    def __init__(
        self, input_edges: Sequence[float], output_edges: Sequence[float], enough: float = ENOUGH
    ) -> None:
        """Nothing has ended. Edges in tokens, rising."""
        self._enough = enough
        self._inputs, self._outputs = tuple(input_edges), tuple(output_edges)
        cells = len(self._inputs) * len(self._outputs)
        self._known = [0.0] * cells
        self._shorter: dict[int, list[float]] = {}

    def learn(self, prompt_tokens: int, most_tokens: int, tokens: int) -> None:
        """A request that might have become `most_tokens` long ended with `tokens`. Some two microseconds."""
        width = len(self._outputs)
        row, up = hat(self._inputs, prompt_tokens)
        column, right = hat(self._outputs, most_tokens)
        for down, over in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (up if down else 1.0 - up) * (right if over else 1.0 - right)
            if weight:
                self._add((row + down) * width + column + over, weight, most_tokens, tokens)

    def _add(self, cell: int, weight: float, most_tokens: int, tokens: int) -> None:
        self._known[cell] += weight
        if tokens < most_tokens:
            shorter = self._shorter.setdefault(cell, [0.0] * len(self._outputs))
            column, right = hat(self._outputs, tokens)
            shorter[column] += weight * (1.0 - right)
            if right:
                shorter[column + 1] += weight * right
        if self._known[cell] > MEMORY:
            self._known[cell] *= 0.5
            if cell in self._shorter:
                self._shorter[cell] = [0.5 * each for each in self._shorter[cell]]

    def answered(self, cells: Floats) -> Floats:
        """Load by what may be answered, row-major [inputs x outputs], as load by what is; the sum of each row stays."""
        width, found = len(self._outputs), cells
        for cell, shorter in self._shorter.items():
            if self._known[cell] >= self._enough and cells[cell]:
                if found is cells:
                    found = cells.copy()
                share = np.array(shorter) / self._known[cell]
                row = cell - cell % width
                found[cell] -= cells[cell] * share.sum()
                found[row : row + width] += cells[cell] * share
        return np.maximum(found, 0.0) if found is not cells else cells
