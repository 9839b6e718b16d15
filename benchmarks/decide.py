"""The planner on a large mixed cluster: everything at once from nothing, then small changes, and explanations.

1,000 nodes of 8 GPUs of four products, 100 services of five models, 50 training jobs. `cold_s`: the first run, every
mix solved, nothing remembered. Then rounds in which five services' objectives change and one node is lost:
`decide_p99_ms`. Each decision is told to a ledger on disk and explained from it: `explain_p99_ms`. Pure decision and
ledger; no store, no agents (the issue's other benchmarks measure those).

Then the same where GPUs are short: every service asks for eight times as much, all have one priority, and select plans
them jointly (`joint_mix`): `contested_cold_s`, `contested_p99_ms`, and how many of them go short.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.base import Arguments, Figure, Result, Row, at_most
from cluster import events as ev
from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Offer, Pool
from cluster.observer import Observer
from cluster.plan import Context
from cluster.reasons import Reason, sentence
from cluster.seeds import stable_hash
from cluster.serving import Objective, ReplicaPhase, Service, Variant
from cluster.training import GangPhase, Job
from controller.beliefs import CapacityBeliefs
from controller.ledger.ledger import Ledger
from controller.ledger.queries import LedgerReader
from controller.ledger.rows import PlanId, plan_row, reason_row
from placement.catalogue import load
from placement.models import model_spec, training_shape
from policies.planner import PlannerRun, PlannerStates, run_planner

NODES, GPUS, SERVICES, JOBS = 1_000, 8, 100, 50
PRODUCTS = ("L4", "A10G", "A100-80", "H100")
LINKS = {
    "L4": ("ethernet", 25),
    "A10G": ("ethernet", 25),
    "A100-80": ("roce", 200),
    "H100": ("infiniband", 400),
}
MODELS = (
    ("mistral-7b", 1),
    ("llama-3.1-8b", 1),
    ("qwen2.5-14b", 2),
    ("qwen2.5-32b", 4),
    ("llama-3.1-70b", 8),
)
ROUNDS = 40
CHANGED_SERVICES = 5
CONTESTED = 8.0
"""Times the load with which GPUs are short."""
JOINTLY = {"select": ("joint_mix", dict[str, Any]())}
NOW = 1_700_000_000.0


def run(args: Arguments) -> Result:
    """Measure cold and changed decisions, and explanations."""
    scale = 0.1 if args.quick else 1.0
    rng = np.random.Generator(np.random.PCG64(stable_hash(args.seed, "decide")))
    observer = _cluster(rng, scale)
    beliefs = CapacityBeliefs()
    scratch: dict[str, Any] = {}
    states = PlannerStates()
    began = time.perf_counter()
    beliefs.refresh(observer, NOW)
    cold = run_planner(observer.snapshot(NOW), states, _context(0, args.seed, scratch))
    cold_seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(str(Path(folder) / "ledger.db"), now=lambda: NOW)
        _tell(ledger, cold, 0)
        _enact(observer, cold)
        took, actions, last = _rounds(observer, beliefs, cold.states, scratch, rng, args, ledger)
        explain = _explain(ledger, str(Path(folder) / "ledger.db"), last)
        ledger.close()
    result = judge(cold, cold_seconds, took, explain, actions, scratch, observer)
    more = contested(args, scale)
    return Result(rows=(*result.rows, *more.rows), figures={**result.figures, **more.figures})


def contested(args: Arguments, scale: float) -> Result:
    """Cold and changed decisions where all services compete for too few GPUs and are planned jointly."""
    rng = np.random.Generator(np.random.PCG64(stable_hash(args.seed, "contested")))
    observer = _cluster(rng, scale)
    for service in list(observer.live("services").values()):
        rate = CONTESTED * service.expected_requests_per_second
        equal = tuple(msgspec.structs.replace(each, priority=0) for each in service.objectives)
        _see(
            observer,
            msgspec.structs.replace(service, expected_requests_per_second=rate, objectives=equal),
        )
    beliefs, scratch = CapacityBeliefs(), dict[str, Any]()
    began = time.perf_counter()
    beliefs.refresh(observer, NOW)
    cold = run_planner(observer.snapshot(NOW), PlannerStates(), _context(0, args.seed, scratch), JOINTLY)
    cold_seconds = time.perf_counter() - began
    _enact(observer, cold)
    took, _, last = _rounds(observer, beliefs, cold.states, scratch, rng, args, None, JOINTLY)
    reasons = [reason for staged in last.stages for reason in staged.plan.reasons]
    together = sum(1 for reason in reasons if reason.code == "MixAllotted")
    short = len(
        {r.subject.name for r in reasons if r.code in ("ShortOfCapacity", "MixAllotted") and _lacks(r)}
    )
    p99_ms = float(np.percentile(took, 99)) * 1e3
    return Result(
        rows=(
            at_most("GPUs are short, planned jointly: cold", cold_seconds, 20.0, "s"),
            at_most("… 5 services changed, 1 node lost, p99", p99_ms, 1_000.0, "ms", 4),
            Row("… services planned together / short at the end", f"{together} / {short}"),
        ),
        figures={
            "contested_cold_s": round(cold_seconds, 3),
            "contested_p99_ms": round(p99_ms, 1),
            "contested_p50_ms": round(float(np.percentile(took, 50)) * 1e3, 1),
            "contested_together": together,
            "contested_short": short,
        },
    )


def _lacks(reason: Reason) -> bool:
    return (reason.fact("shed") or 0.0) > 1e-6


def judge(
    cold: PlannerRun,
    cold_seconds: float,
    took: list[float],
    explain: list[float],
    actions: int,
    scratch: dict[str, Any],
    observer: Observer,
) -> Result:
    """Rows and figures of what was measured; `took` and `explain` in seconds."""
    decide_p99_ms = float(np.percentile(took, 99)) * 1e3
    explain_p99_ms = float(np.percentile(explain, 99)) * 1e3
    figures: dict[str, Figure] = {
        "cold_s": round(cold_seconds, 3),
        "decide_p99_ms": round(decide_p99_ms, 1),
        "explain_p99_ms": round(explain_p99_ms, 1),
        "solves": int(scratch.get("mix_solves", 0)),
        "cache_hits": int(scratch.get("mix_hits", 0)),
        "actions": cold.actions + actions,
        "decide_p50_ms": round(float(np.percentile(took, 50)) * 1e3, 1),
        "explain_p50_ms": round(float(np.percentile(explain, 50)) * 1e3, 1),
        "cold_actions": cold.actions,
        "nodes": len(observer.live("nodes")),
        "services": len(observer.live("services")),
        "jobs": len(observer.live("jobs")),
    }
    rows = (
        at_most("cold: all solved, nothing remembered", cold_seconds, 20.0, "s"),
        at_most("5 services changed, 1 node lost, p99", decide_p99_ms, 1_000.0, "ms", 4),
        at_most("explain one object from the ledger, p99", explain_p99_ms, 100.0, "ms", 4),
        Row("mixes solved / remembered", f"{figures['solves']} / {figures['cache_hits']}"),
        Row("actions, cold / changes", f"{cold.actions} / {actions}"),
    )
    return Result(rows=rows, figures=figures)


def _context(tick: int, seed: int, scratch: dict[str, Any]) -> Context:
    return Context(
        now_seconds=NOW + 60.0 * tick, tick=tick, epoch=1, seed=seed, loop="planner", scratch=scratch
    )


def _rounds(
    observer: Observer,
    beliefs: CapacityBeliefs,
    states: PlannerStates,
    scratch: dict[str, Any],
    rng: np.random.Generator,
    args: Arguments,
    ledger: Ledger | None,
    policies: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> tuple[list[float], int, PlannerRun]:
    """Change a little, decide, put it in force; seconds of each decision, all actions, and the last run."""
    took, actions = [], 0
    run = None
    base = {n: s.expected_requests_per_second for n, s in observer.live("services").items()}
    for tick in range(1, (5 if args.quick else ROUNDS) + 1):
        _change(observer, rng, base)
        began = time.perf_counter()
        beliefs.refresh(observer, NOW)
        snapshot = observer.snapshot(NOW + 60.0 * tick)
        run = run_planner(snapshot, states, _context(tick, args.seed, scratch), policies)
        took.append(time.perf_counter() - began)
        states = run.states
        actions += run.actions
        if ledger is not None:
            _tell(ledger, run, tick)
        _enact(observer, run)
    if run is None:
        raise AssertionError("there is at least one round")
    return took, actions, run


def _change(observer: Observer, rng: np.random.Generator, base: dict[str, float]) -> None:
    """Five services ask for another rate, around their `base`, and one node falls silent."""
    names = sorted(observer.live("services"))
    for name in rng.choice(names, size=min(CHANGED_SERVICES, len(names)), replace=False).tolist():
        service: Service = observer.live("services")[name]
        ref = msgspec.structs.replace(service.ref, version=service.ref.version + 1)
        rate = base[name] * float(rng.uniform(0.7, 1.4))
        _see(observer, msgspec.structs.replace(service, ref=ref, expected_requests_per_second=rate))
    open_nodes = sorted(n for n, node in observer.live("nodes").items() if node.offer is Offer.OPEN)
    lost = observer.live("nodes")[open_nodes[int(rng.integers(len(open_nodes)))]]
    _see(observer, msgspec.structs.replace(lost, offer=Offer.LOST))
    on_it = {
        key for key, launcher in observer.live("launchers").items() if launcher.slots[0].node == lost.name
    }
    for replica in list(observer.live("replicas").values()):
        if replica.launcher in on_it:
            _see(observer, msgspec.structs.replace(replica, phase=ReplicaPhase.LOST))
    for gang in list(observer.live("gangs").values()):
        if any(slot.node == lost.name for slot in gang.layout.slots):
            _see(observer, msgspec.structs.replace(gang, phase=GangPhase.FAILED))


def _see(observer: Observer, noun: Any) -> None:
    observer.fold(ev.Seen(source="watch", observed_seconds=NOW, delivered_seconds=NOW, noun=noun))


def _enact(observer: Observer, run: PlannerRun) -> None:
    """Put the run's outcome in force and let it come to rest: what starts is ready, what stops is gone."""
    after = run.snapshot
    for mapping in ("claims", "launchers", "reservations", "jobs"):
        for noun in getattr(after, mapping).values():
            _see(observer, noun)
    for replica in after.replicas.values():
        if replica.phase in (ReplicaPhase.DRAINING, ReplicaPhase.STOPPING, ReplicaPhase.LOST):
            for mapping in ("replicas", "launchers", "claims"):
                _gone(observer, mapping, replica.key)
        else:
            _see(observer, msgspec.structs.replace(replica, phase=ReplicaPhase.READY))
    for gang in after.gangs.values():
        if gang.phase in (GangPhase.STOPPING, GangPhase.RESTARTING, GangPhase.FAILED):
            _gone(observer, "gangs", gang.key)
            for rank in range(len(gang.layout.slots)):
                _gone(observer, "claims", f"{gang.key}-r{rank}")
        else:
            _see(observer, msgspec.structs.replace(gang, phase=GangPhase.RUNNING))
    for target in after.targets.values():
        observer.fold(ev.Aimed(source="planner", observed_seconds=NOW, delivered_seconds=NOW, target=target))


def _gone(observer: Observer, mapping: str, key: str) -> None:
    observer.fold(
        ev.Gone(source="watch", observed_seconds=NOW, delivered_seconds=NOW, mapping=mapping, key=key)
    )


def _tell(ledger: Ledger, run: PlannerRun, tick: int) -> None:
    for number, staged in enumerate(run.stages):
        row = plan_row(
            PlanId(1, f"{staged.stage}.{number}", tick),
            NOW + 60.0 * tick,
            staged.plan.evidence,
            policy=staged.policy,
        )
        ledger.plan(row, [reason_row(reason, sentence(reason)) for reason in staged.plan.reasons])
    ledger.flush(force=True)


def _explain(ledger: Ledger, path: str, last: PlannerRun) -> list[float]:
    """Seconds to explain each service and job from the ledger."""
    ledger.flush(force=True)
    reader = LedgerReader(path)
    subjects = [("ModelService", name) for name in sorted(last.snapshot.services)]
    subjects += [("TrainingJob", name) for name in sorted(last.snapshot.jobs)]
    took = []
    for kind, name in subjects:
        began = time.perf_counter()
        found = reader.latest_decision(kind, name)
        took.append(time.perf_counter() - began)
        if found is None:
            raise AssertionError(f"nothing was told about {kind} {name}")
    reader.close()
    return took


def _cluster(rng: np.random.Generator, scale: float) -> Observer:
    observer = Observer()
    catalogue = load()
    products: dict[str, AcceleratorClass] = {}
    for name in PRODUCTS:
        product = catalogue.find(name)
        products[name] = product.accelerator_class()
        _see(observer, products[name])
        price = product.dollars_per_gpu_hour
        _see(observer, Pool(name=f"{name}-od", accelerator=name, dollars_per_gpu_hour=price or 1.0))
    for index in range(int(NODES * scale)):
        _see(observer, _node(index, PRODUCTS[index % len(PRODUCTS)], rng))
    for index in range(int(SERVICES * scale)):
        _see(observer, _service(index, rng))
    for index in range(int(JOBS * scale)):
        _see(observer, _job(index, rng))
    return observer


def _node(index: int, product: str, rng: np.random.Generator) -> Node:
    link, gigabits = LINKS[product]
    name = f"node-{index:04d}"
    return Node(
        ref=Ref("Node", name, f"uid-{name}"),
        pool=f"{product}-od",
        accelerator=product,
        devices=tuple(Device(uuid=f"{name}-{gpu}", index=gpu) for gpu in range(GPUS)),
        nics=(Nic(name="net0", link=link, rate_bits_per_second=gigabits * 10**9),),
        cpu_millis=192_000,
        memory_bytes=2 << 40,
        island=f"{product}-{index // 128}",
        order=int(rng.integers(2**31)),
    )


def _service(index: int, rng: np.random.Generator) -> Service:
    model, degree = MODELS[index % len(MODELS)]
    big = [
        Variant(accelerator=name, gpus=g, tensor=g)
        for name in ("A100-80", "H100")
        for g in (max(1, degree // 2), degree)
    ]
    small = (
        [Variant(accelerator=name, gpus=degree, tensor=degree) for name in ("L4", "A10G")]
        if degree <= 2
        else []
    )
    name = f"team-{index % 10}/service-{index:03d}"
    return Service(
        ref=Ref("ModelService", name, f"uid-{name}", 1),
        model=model_spec(model, {}),
        objectives=(
            Objective(
                ttft_seconds=float(rng.choice([2.0, 4.0])),
                tpot_seconds=float(rng.choice([0.06, 0.08, 0.12])),
                priority=index % 3,
            ),
        ),
        variants=tuple(dict.fromkeys([*small, *big])),
        floor_units=1,
        expected_requests_per_second=float(rng.uniform(1.0, 20.0)),
        expected_input_tokens=float(rng.uniform(200.0, 3_000.0)),
        expected_output_tokens=float(rng.uniform(50.0, 500.0)),
    )


def _job(index: int, rng: np.random.Generator) -> Job:
    nodes = int(rng.choice([1, 2, 4, 8]))
    name = f"research/job-{index:02d}"
    return Job(
        ref=Ref("TrainingJob", name, f"uid-{name}", 1),
        shape=training_shape("gpt-3-6.7b", {}),
        steps=10_000,
        global_batch=64 * nodes,
        min_nodes=nodes,
        max_nodes=nodes,
        gpus_per_node=GPUS,
        accelerators=("H100",) if index % 2 else ("A100-80",),
        priority=index % 4,
    )
