"""What outlives an operator: policies' states, what engines taught, standing targets, reservations and load history.

Kept in the ledger. Losing it costs money or latency for a while, never correctness (SEAMS §6).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import msgspec

from cluster import events as ev
from cluster.codec import from_json, to_json
from cluster.observer import Observer
from cluster.occupancy import Reservation
from cluster.serving import Service
from cluster.snapshot import Snapshot
from cluster.targets import AnyTarget
from controller.beliefs import CapacityBeliefs
from controller.learned import SCHEMA as LEARNED_SCHEMA
from controller.learned import Learned
from controller.ledger.ledger import Ledger, Memory
from controller.ledger.rows import LoadRow, PolicyStateRow, json_text
from controller.loops.planner import PlannerLoop
from controller.loops.power import PowerLoop
from controller.routes import GatewayReport
from policies.planner import PlannerStates

log = logging.getLogger("plimsoll.memory")

SCHEMA = 1
PROFILES = "profiles"
"""Of what running engines taught, the name in the ledger."""

LEARNED_BYTES_PER_SECOND = 10_000.0
"""How much of it is written on average at most: large states change every half minute, and losing some minutes costs little."""

LOAD_EVERY_SECONDS = 60.0


class Standing(msgspec.Struct, frozen=True):
    """Targets and reservations in force; of services whose specification became invalid, the last good one."""

    targets: tuple[AnyTarget, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    services: tuple[Service, ...] = ()


class Remembered:
    """Loads and stores through the ledger; without one, every start is from the initial states."""

    def __init__(self, ledger: Ledger | None) -> None:
        """Bind to a ledger."""
        self._ledger = ledger
        self._recalled = Memory()
        self._load_due: dict[str, float] = {}
        self._last: dict[str, bytes] = {}
        self._learned_due = float("-inf")
        self._learned: Learned | None = None

    def highest_epoch(self) -> int:
        """The highest epoch anything was written in.

        Reads the ledger anew, which may block; what is restored later is what it held then.
        """
        if self._ledger is not None:
            self._recalled = self._ledger.recall()
        return self._recalled.highest_epoch

    def restore(
        self,
        planner: PlannerLoop,
        power: PowerLoop,
        beliefs: CapacityBeliefs,
        observer: Observer,
        now_seconds: float,
    ) -> None:
        """Put back what was stored; what cannot be read is left at its initial state, with a log line."""
        del power  # power policies re-learn within a lease: they start from `initial()`
        for row in self._recalled.states:
            try:
                if row.loop == "planner" and row.schema == SCHEMA:
                    planner.states = from_json(row.state, PlannerStates)
                elif row.loop == "standing" and row.schema == SCHEMA:
                    self._stand(from_json(row.state, Standing), observer, now_seconds)
                elif row.loop == PROFILES:
                    self._learn(row, beliefs)
            except msgspec.MsgspecError as error:
                log.warning(
                    "stored state of %s cannot be read (%s); starting from the initial one", row.loop, error
                )

    @staticmethod
    def _learn(row: PolicyStateRow, beliefs: CapacityBeliefs) -> None:
        if row.schema != LEARNED_SCHEMA:
            log.warning(
                "what running engines taught was kept in form %d, this version reads form %d; it is learned anew",
                row.schema,
                LEARNED_SCHEMA,
            )
            return
        beliefs.recall(from_json(row.state, Learned))

    def _stand(self, standing: Standing, observer: Observer, now: float) -> None:
        for target in standing.targets:
            observer.fold(
                ev.Aimed(source="ledger", observed_seconds=now, delivered_seconds=now, target=target)
            )
        nouns: list[Reservation | Service] = [*standing.services]
        nouns += [each for each in standing.reservations if each.expires_seconds > now]
        for noun in nouns:
            observer.fold(ev.Seen(source="ledger", observed_seconds=now, delivered_seconds=now, noun=noun))

    def store(
        self,
        planner: PlannerLoop,
        power: PowerLoop,
        beliefs: CapacityBeliefs,
        snapshot: Snapshot,
        invalid: Collection[str],
        epoch: int,
        now_seconds: float,
    ) -> None:
        """Queue what changed since the last call. `invalid` names services whose specification cannot be acted on."""
        standing = Standing(
            targets=tuple(t for _, t in sorted(snapshot.targets.items())),
            reservations=tuple(r for _, r in sorted(snapshot.reservations.items())),
            services=tuple(s for name, s in sorted(snapshot.services.items()) if name in invalid),
        )
        self._keep("planner", "planner", planner.states, epoch, now_seconds)
        self._keep("standing", "targets", standing, epoch, now_seconds)
        for root, state in sorted(power.states.items()):
            self._keep("power", root, state, epoch, now_seconds)
        learned = beliefs.learned()
        if learned is not None and learned is not self._learned and now_seconds >= self._learned_due:
            self._learned = learned
            written = self._keep(PROFILES, "capacity", learned, epoch, now_seconds, LEARNED_SCHEMA)
            self._learned_due = now_seconds + written / LEARNED_BYTES_PER_SECOND

    def _keep(self, loop: str, scope: str, state: Any, epoch: int, now: float, schema: int = SCHEMA) -> int:
        """Bytes that were queued."""
        body = to_json(state)
        if self._ledger is None or self._last.get(f"{loop}/{scope}") == body:
            return 0
        self._last[f"{loop}/{scope}"] = body
        self._ledger.policy_state(
            PolicyStateRow(
                loop=loop,
                scope=scope,
                policy=loop,
                schema=schema,
                epoch=epoch,
                stored_seconds=now,
                state=body.decode(),
            )
        )
        return len(body)

    def load(self, report: GatewayReport, now_seconds: float) -> None:
        """Keep a gateway's load as history, once a minute."""
        if self._ledger is None or now_seconds < self._load_due.get(report.gateway, 0.0):
            return
        self._load_due[report.gateway] = now_seconds + LOAD_EVERY_SECONDS
        for load in report.loads:
            histogram = {
                "input_edges": list(load.input_edges),
                "output_edges": list(load.output_edges),
                "cells": list(load.cells),
            }
            self._ledger.load(
                LoadRow(
                    service=load.service,
                    request_class=load.traffic_class,
                    at_seconds=now_seconds,
                    window_seconds=load.window_seconds,
                    requests_per_second=float(sum(load.cells)),
                    held_requests=load.held,
                    rejected_per_second=load.rejected_per_second,
                    histogram=json_text(histogram),
                )
            )
