"""Llumnix: running requests move from instances that are short of room for each of theirs to those that have it.

Freeness of an instance F = (M - sum of V) / B in blocks: M its capacity, V what each request takes, B its running
requests (research/live-migration.md §1.1). What runs counts with its blocks, and of the queue its demand, so that a large
request that waits makes the instance look over-full and smaller ones make room for it; then B counts one more.
Sources have F below the threshold, destinations above. Sources by rising and destinations by falling freeness are paired i-th with
i-th; the last that came moves, of those of normal priority. One move per instance at a time, in or out. Constants: the artifact's
(§1.2).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import Migrate
from cluster.base import Ref
from cluster.plan import Context, Decision, Plan
from cluster.reasons import Quantity, Reason, Verdict
from cluster.tables import InstanceTable
from cluster.views import MigrationView

Array = NDArray[np.float64]


class LlumnixMigrationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `block_tokens`: tokens in a block of the KV cache. `source_below_blocks`, `target_above_blocks`: freeness, in blocks
    for each running request, below which requests leave and above which they come. `deadline_seconds`: how long one move
    may take. `most_moves`: how often one request may move.
    """

    block_tokens: int = 16
    source_below_blocks: float = 3.0
    target_above_blocks: float = 3.0
    deadline_seconds: float = 10.0
    most_moves: int = 100


class LlumnixMigrationState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned; moves under way are in the view."""

    schema: int = 1


class LlumnixMigration:
    """`Policy[MigrationView, LlumnixMigrationState]`."""

    def __init__(self, config: LlumnixMigrationConfig | None = None) -> None:
        self._config = config or LlumnixMigrationConfig()

    def initial(self) -> LlumnixMigrationState:
        """The one state there is."""
        return LlumnixMigrationState()

    def decide(
        self, view: MigrationView, state: LlumnixMigrationState, ctx: Context
    ) -> Decision[LlumnixMigrationState]:
        """One move for each pair of a short instance and one with room that has none under way."""
        config, table = self._config, view.instances
        if not table.keys:
            return Decision(Plan(), state)
        free = freeness(table) / config.block_tokens
        if not np.count_nonzero(free < config.source_below_blocks):
            return Decision(Plan(), state)
        busy = {flight.subject.name for flight in view.moves.values()}
        order, blocks, ready = free.argsort(kind="stable").tolist(), free.tolist(), table.ready.tolist()
        idle = [row for row in order if ready[row] > 0.0 and table.keys[row] not in busy]
        sources = [row for row in idle if blocks[row] < config.source_below_blocks]
        targets = [row for row in reversed(idle) if blocks[row] > config.target_above_blocks]
        actions: list[Migrate] = []
        reasons: list[Reason] = []
        for source, target in zip(sources, targets, strict=False):
            victim = self._victim(view, source)
            if victim is None:
                continue
            context = float(view.sequences.context_tokens[victim])
            actions.append(
                Migrate(
                    reason=len(reasons), sequence=view.sequences.keys[victim],
                    epoch=int(view.sequences.epoch[victim]), source=table.keys[source], target=table.keys[target],
                    mode="kv", reserve_tokens=int(context), deadline_seconds=ctx.now_seconds + config.deadline_seconds,
                )
            )  # fmt: skip
            reasons.append(self._reason(view, victim, source, target, free))
        return Decision(Plan(actions=tuple(actions), reasons=tuple(reasons)), state)

    def _victim(self, view: MigrationView, source: int) -> int | None:
        """Row of the sequence that came last to the source, of the lowest priority there."""
        rows = view.sequences
        here = np.flatnonzero(
            (rows.instance == source) & (rows.moves < self._config.most_moves) & (rows.context_tokens > 0.0)
        )
        if not here.size:
            return None
        newest = np.lexsort((here, rows.resident_seconds[here], np.nan_to_num(rows.priority[here])))
        return int(here[newest[0]])

    def _reason(self, view: MigrationView, victim: int, source: int, target: int, free: Array) -> Reason:
        """Why this one moves, with the freeness of both ends in tokens for each running request."""
        tokens, keys = self._config.block_tokens, view.instances.keys
        return Reason(
            code="MovedForRoom", subject=Ref("Request", view.sequences.keys[victim]), verdict=Verdict.MOVED,
            choice=keys[target],
            need=Quantity("context", float(view.sequences.context_tokens[victim]), "tokens"),
            have=Quantity("source_freeness", float(free[source]) * tokens, "tokens"),
            limit=Quantity("threshold", self._config.source_below_blocks * tokens, "tokens"),
            facts=(Quantity("target", float(free[target]) * tokens, "tokens"),),
        )  # fmt: skip


def freeness(table: InstanceTable) -> Array:
    """Tokens of room for each running request [n]; an instance that has not reported has neither room nor need (nan is
    compared false by whoever asks for less or more).
    """
    running = table.running + (table.waiting > 0.0)
    asked = table.kv_reserved_tokens
    unsaid = asked.size and math.isnan(asked[asked.argmax()])  # the maximum is nan where any is
    left = table.kv_free_tokens - (np.nan_to_num(asked) if unsaid else asked)
    shares: Array = left / np.maximum(running, 1.0)
    return shares
