"""`plimsoll operator`: store, hub, routes, planner, ledger and health pages in one process, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from console.commands.pki import HUB
from console.enrolling import Door, EnrolOptions, open_door
from console.kube import open_kube
from console.options import VERSION
from console.process import Talk, run_process
from console.seat import Grounds, Seat
from console.telling import Refused, chosen
from controller.config import OperatorConfig
from controller.enrolment.authorities import AuthorityFolder, SelfIssued
from controller.enrolment.server import EnrolmentServer
from controller.health import Checks, HealthServer, Probe, Pulse
from controller.hub.server import Hosted
from controller.ledger import Ledger
from controller.metrics import Metrics
from controller.resources.core import CORE_RESOURCES
from controller.resources.documents import Fault, documents
from controller.resources.kinds import KINDS
from controller.resources.manifests import Manifest, apply, load
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.embedded.lives import begin_life
from controller.store.interface import Store
from controller.store.remote import StoreServicer
from policies.registry import config_of
from runtime.clock import WallClock, seconds_since_boot
from runtime.keyring import Keyring
from runtime.pausing import pause
from runtime.tls import Source

log = logging.getLogger("plimsoll.operator")

KINDS_SERVED = (*CORE_RESOURCES, *(kind.resource for kind in KINDS))
CHANGES_KEPT = 20_000
WRITES_AT_ONCE = 32
"""Creations and deletions that wait for the store together, unless the settings say otherwise."""
"""Changes of a kind kept for watches; node leases alone make one a node each ten seconds."""
COLLECT_SECONDS = 1.0
LOOP_LIMIT_SECONDS = 120.0
"""A loop that has not come round for so long does not come round any more: a restart would help. (Each call of a store
that does not answer ends by its deadline, of 30 s at most, and a round makes some of them.)"""
ELECTOR_LIMIT_SECONDS = 15.0
"""The elector's own task waits for nobody longer than some seconds: silent for so long, the process hangs."""
FORMER_KEPT = 16
"""Former identities of this process that are remembered as dead."""
STORES = ("embedded", "kube")


class OperatorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll operator` was told. `health_port` below 0: no health pages.

    `ca_dir`: the root that signs agents' certificates and the operator's own; without it the own one is in `pki`.
    `store`: `embedded`, or `kube` for the API server of `kubeconfig` (None: the pod's account, or $KUBECONFIG) and its
    `context` (None: its current one).
    """

    pki: Path
    ledger: str
    host: str
    port: int
    health_host: str
    health_port: int
    manifests: tuple[Path, ...] = ()
    config: Path | None = None
    seed: int | None = None
    ca_dir: Path | None = None
    enrol: EnrolOptions | None = None
    store: str = "embedded"
    kubeconfig: Path | None = None
    context: str | None = None


def run_operator(options: OperatorOptions, talk: Talk) -> int:
    """Serve until told to stop; 0 at a clean end, 2 for what a person must mend first."""
    return run_process(lambda stop: _serve(options, talk, stop), talk)


def read_config(path: Path | None, seed: int | None = None) -> OperatorConfig:
    """Settings from a YAML file, strictly. Raises Refused with the path of what is wrong."""
    values: object = {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            values = next((document.value for document in documents(text)), None) or {}
        except UnicodeDecodeError as error:
            raise Refused(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8.") from error
        except OSError as error:
            raise Refused(
                f"{path}: {error.strerror or error}. Give --config the path of a YAML file."
            ) from error
        except Fault as fault:
            raise Refused(f"{path}:{fault.line}: {fault.sentence}") from fault
    try:
        config = msgspec.convert(values, OperatorConfig)
        for loop, choice in config.policies.items():
            config_of(loop, choice.name, choice.config)
    except ValueError as error:  # msgspec's and the registry's faults are
        fields = ", ".join(OperatorConfig.__struct_fields__)
        raise Refused(f"{path}: {error}. Its fields are {fields}.") from error
    more = {"seed": seed} if seed is not None else {}
    if not isinstance(values, dict) or "writes_at_once" not in values:
        more["writes_at_once"] = WRITES_AT_ONCE
    return msgspec.structs.replace(config, threaded=True, **more)


async def _serve(options: OperatorOptions, talk: Talk, stop: asyncio.Event) -> None:
    config = read_config(options.config, options.seed)
    manifests = load(*options.manifests) if options.manifests else []
    async with AsyncExitStack() as ends:
        store = await _store(options, config, ends)
        process = _Process(options, config, store, ends)
        await process.start()
        if await process.served(stop):
            await process.serve(manifests, talk, stop)
        log.info("told to stop")


async def _store(options: OperatorOptions, config: OperatorConfig, ends: AsyncExitStack) -> Store:
    """Where the objects live: in this process, or on an API server. Raises Refused when that cannot be used."""
    clock = WallClock()
    if chosen("store", options.store, STORES) == "embedded":
        store = open_store(clock, seed=config.seed, window=CHANGES_KEPT)
        begin_life(store, clock.now())
        return store
    return await open_kube(
        options.kubeconfig, options.context, config, clock, ends, agent=f"plimsoll/{VERSION}"
    )


class _Process:
    """Everything of one operator process. What is begun here is ended by `ends`, in the opposite order."""

    def __init__(
        self, options: OperatorOptions, config: OperatorConfig, store: Store, ends: AsyncExitStack
    ) -> None:
        clock = WallClock(monotonic=seconds_since_boot)
        self._options = options
        self._ends = ends
        self.store = store
        self.ledger = Ledger(options.ledger, now=clock.now)
        ends.callback(self.ledger.close)
        self.metrics = Metrics(VERSION)
        self.authority = AuthorityFolder(options.ca_dir, clock) if options.ca_dir is not None else None
        self.source = self._own_certificate(clock)
        self.pulse = Pulse("The operator's loop", LOOP_LIMIT_SECONDS, clock.monotonic)
        self.elector_pulse = Pulse("The elector", ELECTOR_LIMIT_SECONDS, clock.monotonic)
        hosted: tuple[Hosted, ...] = ()
        if isinstance(store, EmbeddedStore):
            hosted = (StoreServicer(store, KINDS_SERVED, plane=store).hosted(),)
        self._grounds = Grounds(
            store=store,
            clock=clock,
            config=config,
            ledger=self.ledger,
            metrics=self.metrics,
            certificate=self.source,
            host=options.host,
            port=options.port,
            hosted=hosted,
            loop_beat=self.pulse.beat,
            elector_beat=self.elector_pulse.beat,
        )
        self.seat = Seat(self._grounds, ())
        self.health: HealthServer | None = None
        self.enrolment: EnrolmentServer | None = None
        self._clock = clock
        self._told = False
        self._lacking = ""

    def _own_certificate(self, clock: WallClock) -> Source:
        """Issued by the root at hand, or from the folder of certificates."""
        if self.authority is None:
            return Keyring(self._options.pki, clock).source(HUB)
        return SelfIssued(self.authority, HUB, clock)

    async def start(self) -> None:
        """Write the ledger, answer probes, hand out certificates (while it leads)."""
        self.ledger.start()
        if self._options.health_port >= 0:
            self.health = HealthServer(
                self._checks(),
                self.metrics.page,
                host=self._options.health_host,
                port=self._options.health_port,
            )
            self.health.start()
            self._ends.callback(self.health.close)
        if isinstance(self.store, EmbeddedStore):
            collecting = asyncio.create_task(_collect(self.store))
            self._ends.push_async_callback(_cancelled, collecting)
        await self._open_enrolment()

    async def served(self, stop: asyncio.Event) -> bool:
        """Wait until the API server serves our kinds as this version needs them; False when told to stop before."""
        if isinstance(self.store, EmbeddedStore):
            return True
        from controller.store.kube import KubeStore
        from controller.store.kube.discovery import wait_until_served

        if not isinstance(self.store, KubeStore):
            return True

        def told(sentence: str) -> None:
            self._lacking = sentence

        def beat() -> None:
            self.pulse.beat()
            self.elector_pulse.beat()

        return await wait_until_served(self.store, self._clock, stop, told=told, beat=beat)

    async def serve(self, manifests: list[Manifest], talk: Talk, stop: asyncio.Event) -> None:
        """Stand by and lead by turns, until told to stop. The manifests are applied by whoever leads first."""
        dead: tuple[str, ...] = ()
        while True:
            seat = self.seat
            try:
                if await seat.stand_by(stop, lambda: self._tell(talk, "standby")):
                    await self._apply(manifests)
                    manifests = []
                    if await seat.open(stop):
                        self._tell(talk, "leading")
                        await seat.run(stop)
            finally:
                await seat.close()
            if stop.is_set():
                return
            log.warning("standing by again: %s", seat.operator.elector.told())
            dead = (*dead, seat.identity)[-FORMER_KEPT:]
            self.seat = Seat(self._grounds, dead)

    async def _apply(self, manifests: list[Manifest]) -> None:
        if manifests:
            applied = await apply(self.store, manifests)
            log.info("%d objects applied from %d manifests", len(applied), len(manifests))

    def _tell(self, talk: Talk, state: str) -> None:
        """Say once that the process does its work."""
        if self._told:
            return
        self._told = True
        facts: dict[str, str | int] = {"endpoint": self.seat.door.endpoint, "epoch": self.seat.operator.epoch}
        if self.health is not None:
            facts["health"] = self.health.url
        if self.enrolment is not None:
            facts["enrolment"] = self.enrolment.endpoint
        seed = self._grounds.config.seed
        talk.ready("operator", state=state, ledger=self.ledger.name, seed=seed, **facts)

    async def _open_enrolment(self) -> None:
        if self._options.enrol is None:
            return
        if self.authority is None:
            raise Refused("--enrol-listen needs --ca-dir: the root that signs the agents' certificates.")
        door = Door(
            authority=self.authority,
            credentials=self.source,
            leads=lambda: self.seat.operator.elector.leads,
            counted=self.metrics.enrolled,
            signed=self._renewed,
        )
        self.enrolment = await open_door(
            self._options.enrol, door, self._grounds.config, self._clock, self._ends
        )

    def _renewed(self, node: str, until_seconds: float) -> None:
        """Tell the hub of this leadership that a node's stream may go on."""
        self.seat.hub.renewed(node, until_seconds)

    def _checks(self) -> Checks:
        checks = Checks(state=lambda: self.seat.standing)
        checks.add("loop", self.pulse, Probe.LIVE)
        checks.add("elector", self.elector_pulse, Probe.LIVE)
        checks.add("kinds", lambda: self._lacking)
        checks.add("leading", self._leading)
        checks.add(
            "store",
            lambda: "" if self.seat.operator.caches.synced else "the caches have not been filled yet",
        )
        checks.add("ledger", lambda: self.ledger.state().problem, Probe.WARN)
        return checks

    def _leading(self) -> str:
        """Well while it leads, and while it knows who does."""
        operator = self.seat.operator
        if operator.elector.leads:
            return "" if operator.epoch else "no epoch was taken yet"
        return "" if operator.elector.waits else operator.elector.told()


async def _collect(store: EmbeddedStore) -> None:
    """Owner garbage collection, which an API server's controller manager would do."""
    forever = asyncio.Event()
    while not await pause(forever, COLLECT_SECONDS):
        await store.collect_garbage()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
