"""Select, by Mélange's published rule: whole slices of sizes, types filled to 100 %, no headroom. A baseline.

Everything around it (which services, which variants, what is refused) is `cheapest_mix`'s. Its load is the gateways' soft
histogram: the published rule also rounds requests up to the next size, which these histograms no longer show.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from cluster.plan import Context
from cluster.targets import Mix
from placement.selection.melange import SLICES, melange
from placement.selection.problem import MixSolution
from policies.draft import Draft
from policies.frames import Floats, Frame
from policies.mixes import mix_of, problem_of
from policies.options import MixOptions
from policies.select.cheapest_mix import CheapestMix

MEMO_LIMIT = 1_024
"""Solved loads kept in scratch; the oldest go first."""


class MelangeMixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy. `slices`: parts into which each size of request is cut."""

    slices: Annotated[int, msgspec.Meta(ge=1, le=64)] = SLICES


class MelangeMix(CheapestMix):
    """`Policy[Snapshot, CheapestMixState]`: a `Menu` of one mix per service, where it changed."""

    def __init__(self, config: MelangeMixConfig | None = None) -> None:
        super().__init__()
        self._slices = (config or MelangeMixConfig()).slices

    def _mixes(
        self,
        frame: Frame,
        shares: Floats,
        rate: float,
        free: dict[str, int],
        most: dict[str, int],
        _: MixOptions,
        ctx: Context,
        draft: Draft,
    ) -> list[Mix]:
        options = MixOptions(headroom=False, by_size=True)
        problem = problem_of(frame, shares, rate, free, most, options)
        memo: dict[bytes, MixSolution] = ctx.scratch.setdefault("melange", {})
        key = hashlib.blake2b(msgspec.json.encode((problem, self._slices), order="deterministic")).digest()
        if key not in memo:
            while len(memo) >= MEMO_LIMIT:
                del memo[next(iter(memo))]
            memo[key] = melange(problem, self._slices)
        draft.units_used += 1
        solution = memo[key]
        return (
            [mix_of(frame, shares, rate, solution, options)] if solution.feasible and solution.counts else []
        )
