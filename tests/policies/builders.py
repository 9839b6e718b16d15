"""Snapshots for tests of deciding: a fluent builder on shipped products."""

from __future__ import annotations

from typing import Any, Self

import msgspec
import numpy as np

from cluster import events
from cluster.base import Ref
from cluster.beliefs import Beliefs
from cluster.hardware import Device, Nic, Node, Pool, Slot
from cluster.observer import Observer
from cluster.occupancy import Claim, Reservation
from cluster.plan import Context
from cluster.power import Lease, PowerDomain
from cluster.seeds import stable_hash
from cluster.serving import (
    Launcher,
    LoadHistogram,
    Model,
    Objective,
    Replica,
    ReplicaPhase,
    Service,
    Variant,
)
from cluster.snapshot import Snapshot, Stamp
from cluster.tables import InstanceTable, NodeTable, SignalTable
from cluster.targets import AnyTarget, Capacity, Mix, MixPart, target_key
from cluster.training import Gang, GangPhase, Job, JobPhase, Layout, TrainingShape
from cluster.views import PowerView
from placement.catalogue import load
from placement.models import model_spec
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity
from policies.shapes import DEFAULT_EDGES, declared

NOW = 10_000.0
CATALOGUE = load()
ESTIMATOR = RooflineCapacity()
_FORMED: dict[bytes, Any] = {}

RATES = {"infiniband": 400_000_000_000, "roce": 200_000_000_000, "ethernet": 25_000_000_000}


def context(now: float = NOW, **more: Any) -> Context:
    """A context with a scratch of its own."""
    fields: dict[str, Any] = {"now_seconds": now, "seed": 7, "scratch": {}}
    return Context(**{**fields, **more})


def product(name: str) -> Any:
    """A shipped product as the cluster's class."""
    return CATALOGUE.find(name).accelerator_class()


def histogram(service: str, rate: float, request_class: str = "default", **more: Any) -> LoadHistogram:
    """Load of `rate` requests/s in the shape a service of default size declares."""
    tokens_in, tokens_out = more.pop("tokens_in", 1_000.0), more.pop("tokens_out", 200.0)
    blank = Service(
        ref=Ref("ModelService", service),
        model=MODEL,
        objectives=(Objective(request_class=request_class, ttft_seconds=2.0, tpot_seconds=0.1),),
        variants=(),
        expected_input_tokens=tokens_in,
        expected_output_tokens=tokens_out,
    )
    cells = declared(blank).cells[request_class]
    fields: dict[str, Any] = {
        "service": service,
        "request_class": request_class,
        "input_edges": DEFAULT_EDGES[0],
        "output_edges": DEFAULT_EDGES[1],
        "cells": tuple(rate * share for share in cells),
        "window_seconds": 60.0,
        "observed_seconds": NOW,
    }
    return LoadHistogram(**{**fields, **more})


MODEL: Model = model_spec("llama-3.1-8b", {})


class ClusterBuilder:
    """Collects nouns; `build` makes the snapshot, with roofline beliefs for every allowed variant."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.parts: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, dict[str, float]] = {}
        self._signals: dict[str, dict[str, float]] = {}
        self._power: dict[str, dict[str, float]] = {}

    def _put(self, mapping: str, key: str, noun: Any) -> Self:
        self.parts.setdefault(mapping, {})[key] = noun
        return self

    def with_pool(self, name: str, accelerator: str, dollars: float | None = None) -> Self:
        """A product and a pool of it, at the shipped price unless given."""
        self._put("accelerators", accelerator, product(accelerator))
        price = CATALOGUE.find(accelerator).dollars_per_gpu_hour if dollars is None else dollars
        return self._put(
            "pools", name, Pool(name=name, accelerator=accelerator, dollars_per_gpu_hour=price or 1.0)
        )

    def with_nodes(
        self, count: int, pool: str, gpus: int = 8, island: str = "", link: str = "ethernet", **more: Any
    ) -> Self:
        """Open nodes `pool-0`, `pool-1`, … (counting on) of an existing pool."""
        accelerator = self.parts["pools"][pool].accelerator
        known = sum(1 for node in self.parts.get("nodes", {}).values() if node.pool == pool)
        for number in range(known, known + count):
            name = f"{pool}-{number}"
            self._put(
                "nodes",
                name,
                Node(
                    ref=Ref("Node", name, f"uid-{name}", 1),
                    pool=pool,
                    accelerator=accelerator,
                    devices=tuple(Device(uuid=f"{name}/{i}", index=i) for i in range(gpus)),
                    nics=(Nic(name="nic0", link=link, rate_bits_per_second=RATES[link]),),
                    island=island or f"{pool}-{link}",
                    order=stable_hash(7, name) % 1_000_003,
                    **more,
                ),
            )
        return self

    def changing(self, mapping: str, key: str, **changes: Any) -> Self:
        """Replace fields of something put before."""
        return self._put(mapping, key, msgspec.structs.replace(self.parts[mapping][key], **changes))

    def with_service(self, name: str = "shop/chat", *variants: str | Variant, **more: Any) -> Self:
        """A service; a variant given as text is `product` or `productxGPUs`."""
        made = tuple(v if isinstance(v, Variant) else variant(v) for v in variants or ("L4", "A100-80"))
        fields: dict[str, Any] = {
            "ref": Ref("ModelService", name, f"uid-{name}", 1),
            "model": MODEL,
            "objectives": (Objective(ttft_seconds=2.0, tpot_seconds=0.1),),
            "variants": made,
        }
        return self._put("services", name, Service(**{**fields, **more}))

    def with_load(self, service: str, rate: float, held: float = 0.0, **more: Any) -> Self:
        """Measured load, seen until now."""
        load_of = histogram(service, rate, **more)
        self._put("loads", f"{service}|{load_of.request_class}", load_of)
        last = {"last_arrival_seconds": self.now} if rate > 0.0 or held > 0.0 else {}
        return self.with_signal(service, requests_per_second=rate, held=held, **last)

    def with_signal(self, service: str, **columns: float) -> Self:
        """Numbers of a service's signal row."""
        row = self._signals.setdefault(service, {"observed_seconds": self.now})
        row.update(columns)
        return self

    def with_replica(
        self,
        service: str,
        of: str,
        node: str,
        phase: ReplicaPhase = ReplicaPhase.READY,
        devices: tuple[int, ...] | None = None,
        age: float = 100.0,
        **more: Any,
    ) -> Self:
        """A replica on a node, on its first free devices unless given."""
        made = variant(of)
        ordinal = more.pop("ordinal", len(self.parts.get("replicas", {})) + 1)
        key = more.pop("key", f"{service}-{made.key.lower()}-{ordinal}")
        if devices is None:
            used = {
                i
                for c in self.parts.get("claims", {}).values()
                if c.slot.node == node
                for i in c.slot.devices
            }
            devices = tuple(i for i in range(64) if i not in used)[: made.gpus]
        slot = Slot(node=node, devices=devices, milli_per_device=made.milli)
        owner = Ref("Replica", key, f"uid-{key}")
        priority = (
            self.parts["services"][service].priority if service in self.parts.get("services", {}) else 0
        )
        self._put("claims", key, Claim(key=key, owner=owner, slot=slot, priority=priority, phase="running"))
        self._put(
            "launchers",
            key,
            Launcher(key=key, ref=Ref("Launcher", key), slots=(slot,), variant=made, phase=phase),
        )
        fields: dict[str, Any] = {
            "key": key,
            "ref": owner,
            "service": service,
            "launcher": key,
            "variant": made,
            "pool": self.parts["nodes"][node].pool if node in self.parts.get("nodes", {}) else "",
            "phase": phase,
            "ordinal": ordinal,
            "phase_since_seconds": self.now - age,
        }
        return self._put("replicas", key, Replica(**{**fields, **more}))

    def with_row(self, replica: str, **columns: float) -> Self:
        """Numbers of a replica's instance row."""
        self._rows.setdefault(replica, {"observed_seconds": self.now}).update(columns)
        return self

    def with_capacity(
        self,
        service: str,
        rate: float,
        *parts: tuple[str, str, int],
        units: int = 0,
        final: bool = True,
        **more: Any,
    ) -> Self:
        """A standing capacity; parts are (variant, pool, units) with equal weights a unit."""
        total = sum(units for _, _, units in parts) or 1
        mix = Mix(
            parts=tuple(
                MixPart(variant=variant(v).key, pool=p, units=n, weight=n / total) for v, p, n in parts
            )
        )
        return self.with_target(
            Capacity(
                owner=more.pop("owner", "commit"),
                decided_seconds=self.now - 1_000.0,
                service=service,
                mix=mix,
                wanted_per_second=rate,
                wanted_units=units,
                final=final,
                **more,
            )
        )

    def with_target(self, target: AnyTarget) -> Self:
        """Any standing target."""
        return self._put("targets", target_key(target), target)

    def with_job(
        self, name: str = "lab/job", nodes: tuple[int, int] = (2, 2), gpus: int = 8, **more: Any
    ) -> Self:
        """A training job of a 1.3 billion parameter model."""
        fields: dict[str, Any] = {
            "ref": Ref("TrainingJob", name, f"uid-{name}", 1),
            "shape": TrainingShape(layers=24, hidden_size=2_048, sequence_length=2_048),
            "steps": 1_000,
            "global_batch": 512,
            "min_nodes": nodes[0],
            "max_nodes": nodes[1],
            "gpus_per_node": gpus,
            "waiting_since_seconds": self.now - 50.0,
        }
        return self._put("jobs", name, Job(**{**fields, **more}))

    def with_gang(
        self,
        job: str,
        nodes: tuple[str, ...],
        phase: GangPhase = GangPhase.RUNNING,
        attempt: int = 1,
        **more: Any,
    ) -> Self:
        """An attempt with a claim per member on the first devices of each node."""
        wanted: Job = self.parts["jobs"][job]
        slots = tuple(Slot(node=n, devices=tuple(range(wanted.gpus_per_node))) for n in nodes)
        key = f"{job}-a{attempt}"
        members = []
        for rank, slot in enumerate(slots):
            pod = f"{key}-r{rank}"
            members.append(f"{pod}#uid-{pod}")
            self._put(
                "claims", pod, Claim(key=pod, owner=Ref("TrainingJob", job), slot=slot, phase="running")
            )
        fields: dict[str, Any] = {
            "key": key,
            "ref": Ref("Gang", key, f"uid-{key}"),
            "job": job,
            "attempt": attempt,
            "rendezvous": key,
            "layout": Layout(data=len(nodes) * wanted.gpus_per_node, slots=slots),
            "phase": phase,
            "phase_since_seconds": self.now - 100.0,
            "members": tuple(members),
            "members_up": len(nodes),
            "step": 120,
            "checkpoint_step": 100,
        }
        self.changing("jobs", job, attempt=attempt, phase=JobPhase.ACTIVE)
        return self._put("gangs", key, Gang(**{**fields, **more}))

    def with_claim(self, key: str, node: str, *devices: int, **more: Any) -> Self:
        """Somebody else's pod."""
        fields: dict[str, Any] = {"owner": Ref("Pod", key), "foreign": True, "phase": "running"}
        slot = Slot(node=node, devices=devices)
        return self._put("claims", key, Claim(key=key, slot=slot, **{**fields, **more}))

    def with_reservation(self, key: str, owner: str, *slots: Slot, seconds: float = 100.0) -> Self:
        """Slots kept for a job."""
        return self._put(
            "reservations",
            key,
            Reservation(
                key=key,
                owner=Ref("TrainingJob", owner),
                slots=slots,
                starts_seconds=self.now,
                expires_seconds=self.now + seconds,
            ),
        )

    def with_domain(self, name: str, rating: int, members: tuple[str, ...] = (), **more: Any) -> Self:
        """A breaker."""
        return self._put(
            "domains",
            name,
            PowerDomain(
                ref=Ref("PowerDomain", name, f"uid-{name}", 1), rating_watts=rating, members=members, **more
            ),
        )

    def with_lease(self, node: str, watts: int, charged: int | None = None, seconds: float = 4.0) -> Self:
        """A lease in force."""
        return self._put(
            "leases",
            node,
            Lease(
                node=node,
                watts=watts,
                charged_watts=watts if charged is None else charged,
                issued_seconds=self.now,
                expires_seconds=self.now + seconds,
            ),
        )

    def with_power(self, node: str, **columns: float) -> Self:
        """Numbers of a node's row."""
        self._power.setdefault(node, {"observed_seconds": self.now}).update(columns)
        return self

    def build(self) -> Snapshot:
        """The snapshot; mappings sorted by key as the observer publishes them."""
        mappings = {name: dict(sorted(parts.items())) for name, parts in self.parts.items()}
        return Snapshot(
            stamp=Stamp(taken_seconds=self.now),
            beliefs=beliefs_of(mappings),
            instance_table=_table(InstanceTable, self._rows),
            signal_table=_table(SignalTable, self._signals),
            node_table=_table(NodeTable, self._power),
            **mappings,
        )


def a_cluster(now: float = NOW) -> ClusterBuilder:
    """An empty cluster to build on."""
    return ClusterBuilder(now)


def _table(kind: Any, rows: dict[str, dict[str, float]]) -> Any:
    keys = sorted(rows)
    columns = sorted({name for row in rows.values() for name in row})
    return kind.build(keys, {c: [rows[k].get(c, np.nan) for k in keys] for c in columns})


def beliefs_of(mappings: dict[str, dict[str, Any]]) -> Beliefs:
    """Roofline beliefs of every allowed variant of every service under each of its objectives."""
    found = {}
    for service in mappings.get("services", {}).values():
        for each in service.variants:
            accelerator = mappings.get("accelerators", {}).get(each.accelerator)
            if accelerator is None:
                continue
            for objective in service.objectives:
                question = CapacityQuestion(
                    model=service.model, variant=each, objective=objective, accelerator=accelerator
                )
                found[question.key] = _answer(question)
    return Beliefs(capacity=dict(sorted(found.items())))


def _answer(question: CapacityQuestion) -> Any:
    key = msgspec.json.encode(question)
    if key not in _FORMED:
        state = ESTIMATOR.fold(question, ESTIMATOR.initial())
        _FORMED[key] = ESTIMATOR.believe(state, NOW)[question.key]
    return _FORMED[key]


def variant(text: str) -> Variant:
    """`L4`, `A100-80x2`, `H100x4/fp8`, or `L4x0.25` (a quarter of one) as a variant."""
    rest, _, precision = text.partition("/")
    if "x0." in rest:
        name, _, share = rest.partition("x0.")
        return Variant(
            accelerator=name, milli=round(1_000 * float(f"0.{share}")), precision=precision or "bf16"
        )
    name, _, gpus = rest.rpartition("x") if rest.rpartition("x")[2].isdigit() else (rest, "", "1")
    count = int(gpus)
    return Variant(accelerator=name, gpus=count, tensor=count, precision=precision or "bf16")


def power_view_of(snapshot: Snapshot, root: str, now: float = NOW) -> PowerView:
    """The power loop's view as the observer publishes it."""
    observer = Observer()
    times = {"source": "test", "observed_seconds": now, "delivered_seconds": now}
    for mapping in ("accelerators", "nodes", "domains", "gangs"):
        for noun in getattr(snapshot, mapping).values():
            observer.fold(events.Seen(noun=noun, **times))
    for node, row in snapshot.node_table.rows():
        columns = {k: v for k, v in row.items() if k != "observed_seconds"}
        at = {**times, "observed_seconds": row["observed_seconds"]}
        observer.fold(events.AgentReport(node=node, columns=columns, **at))
    for lease in snapshot.leases.values():  # after the reports, which would acknowledge them
        observer.fold(events.Seen(noun=lease, **times))
    return observer.power_view(root, now)


def powered(made: ClusterBuilder, nodes: list[str], safe: float = 300, most: float = 1_000) -> ClusterBuilder:
    """Give nodes fresh power rows with rising demand."""
    for number, node in enumerate(nodes):
        made.with_power(
            node,
            safe_watts=safe,
            min_watts=safe,
            max_watts=most,
            demand_watts=most * (0.5 + 0.1 * (number % 6)),
        )
    return made
