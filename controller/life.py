"""An operator in real time: it waits for the Lease with warm caches, leads, and stops at once when it loses it."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from controller.config import OperatorConfig
from controller.leadership import Elector, NotLeading
from controller.leadership.campaign import Campaign
from controller.leadership.epoch import AtLeast
from controller.store.errors import StoreError
from controller.store.interface import Store
from runtime.clock import Clock
from runtime.pausing import pause

if TYPE_CHECKING:
    from controller.operator import Operator

log = logging.getLogger("plimsoll.operator")

Beat = Callable[[], None]

LAST_ROUND_SECONDS = 0.5
"""How long the round under way may take to its end at a planned stop: what is half done is done, as a rule."""


def _silent() -> None:
    return


def campaign(
    store: Store,
    clock: Clock,
    config: OperatorConfig,
    known: AtLeast,
    identity: str = "",
    dead: Collection[str] = (),
) -> Campaign:
    """An operator's candidacy for the Lease of its configuration; its identity is random unless given."""
    identity = identity or f"{config.identity}-{secrets.token_hex(5)}"
    elector = Elector(
        store,
        clock,
        config.lease,
        namespace=config.namespace,
        identity=identity,
        rng=random.Random(identity),
        at_least=known,
        dead=dead,
    )
    return Campaign(elector, store, clock, namespace=config.namespace, seed=config.seed)


async def stand_by(
    operator: Operator, stop: asyncio.Event, tick_seconds: float = 0.1, beat: Beat = _silent
) -> bool:
    """Wait for the Lease; True once the operator leads, False at `stop` (or when it lost it at once).

    Nothing is decided, and nothing but the Lease is written. `beat` is called after each round.
    """
    operator.campaign.start()
    while not stop.is_set() and not operator.elector.over:
        if operator.elector.leads:
            operator.lead()
            return True
        await operator.follow()
        beat()
        await pause(stop, tick_seconds)
    return False


async def run(operator: Operator, stop: asyncio.Event, tick_seconds: float, beat: Beat) -> None:
    """Pump until `stop` is set, or the Lease is lost: that ends whatever is under way.

    A store that does not answer is waited for, as long as the Lease allows. `beat` is called after each round that
    was carried out, for a health check.
    """
    operator.campaign.start()
    rounds = asyncio.create_task(_rounds(operator, stop, tick_seconds, beat))
    tasks = [rounds, asyncio.create_task(operator.campaign.over.wait())]
    if operator.config.threaded:
        tasks.append(asyncio.create_task(_keep_leases(operator, stop)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            done |= (await asyncio.wait([rounds], timeout=LAST_ROUND_SECONDS))[0]
        for task in done:
            task.result()  # a defect in keeping leases must end the process: without them every node is clamped
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _rounds(operator: Operator, stop: asyncio.Event, tick_seconds: float, beat: Beat) -> None:
    while not stop.is_set() and not operator.elector.over:
        try:
            await operator.step()
            beat()
        except NotLeading:
            return
        except StoreError as error:
            log.warning("the store does not answer (%s); trying again", error)
        await pause(stop, tick_seconds)


async def _keep_leases(operator: Operator, stop: asyncio.Event) -> None:
    """Renew power leases on time, whatever else waits for the store (a grant waits for nobody)."""
    while not stop.is_set() and not operator.elector.over:
        await operator.keep_leases()
        await pause(stop, operator.config.power_seconds / 4)
