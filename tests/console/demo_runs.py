"""Synthetic runs, seeded: what a demo hour looks like, and the odd ones a report must survive."""

from __future__ import annotations

import math

import numpy as np

from console.demo.run_data import (
    DemoRun,
    Happening,
    JobFacts,
    ObjectExplanation,
    Sample,
    ServiceFacts,
    SingleType,
)

PRICES = {"l4": 0.805, "a10g": 1.006, "a100-80": 3.431, "h100": 6.88}
CHAT, ASSISTANT, WRITER = "shop/chat", "shop/assistant", "shop/batch-writer"
FAILURE = 1800.0
HOSTILE = '<script>alert("x")</script>&"\'$x^2$\x1b[31m\u202e\x00 ]]> --> [red]no[/red]'


def service(
    name: str, rng: np.random.Generator, *, total: float, rate: float, start: float = 0.0
) -> ServiceFacts:
    """A service under Poisson arrivals whose latencies rise after the failure."""
    number = max(0, int((total - start) * rate))
    arrived = np.sort(rng.uniform(start, max(total, start), number))
    ttft = rng.lognormal(math.log(0.55), 0.5, number)
    ttft += np.where((arrived > FAILURE) & (arrived < FAILURE + 60), rng.exponential(2.0, number), 0.0)
    if start:
        ttft += np.maximum(0.0, 95.0 - (arrived - start)) * (arrived - start < 95.0)
    tpot = rng.lognormal(math.log(0.05), 0.28, number)
    inside = (ttft <= 3.0) & (tpot <= 0.12)
    return ServiceFacts(
        name=name,
        model="llama-3.1-8b",
        ttft_objective_seconds=3.0,
        tpot_objective_seconds=0.12,
        percentile=0.95,
        arrived_seconds=arrived.tolist(),
        ttft_seconds=ttft.tolist(),
        tpot_seconds=tpot.tolist(),
        attained=int(inside.sum()),
        total=number,
        ready=3,
        gpus={"a10g": 3},
    )


def replicas_at(t: float) -> dict[str, dict[str, int]]:
    """Ready replicas of the three services at a moment."""
    down = 1 if FAILURE <= t < FAILURE + 90 else 0
    chat = {"a10g": 4 - down if t > 0 else 2, "l4": 2 if t > 900 else 1}
    writer = {"l4": 0 if t < 695 else 3 if t < 2400 else 2}
    return {CHAT: chat, ASSISTANT: {"a100-80": 4 if t < 2100 else 5}, WRITER: writer}


def sample(t: float, rng: np.random.Generator, rates: dict[str, float]) -> Sample:
    """The cluster at a moment of the hour."""
    replicas = replicas_at(t)
    per = {CHAT: {"a10g": 1, "l4": 1}, ASSISTANT: {"a100-80": 4}, WRITER: {"l4": 1}}
    gpus: dict[str, int] = {}
    money = {}
    for name, by_kind in replicas.items():
        money[name] = sum(PRICES[k] * n * per[name][k] for k, n in by_kind.items())
        for kind, n in by_kind.items():
            gpus[kind] = gpus.get(kind, 0) + n * per[name][kind]
    wave = 1.0 + 0.25 * math.sin(t / 500.0)
    load = {
        n: float(rng.poisson(r * wave)) if t >= (600 if n == WRITER else 0) else 0.0 for n, r in rates.items()
    }
    uncapped = 33_500 + 5_500 * math.sin(t / 700.0) + float(rng.normal(0, 350))
    back = t >= FAILURE
    done = int(max(t + 60, 0) * 0.32)
    return Sample(
        seconds=t,
        load_per_second=load,
        held={CHAT: 0, ASSISTANT: 0, WRITER: int(max(0, min(t - 600, 95)) * 1.2) if 600 < t < 695 else 0},
        replicas=replicas,
        gpus=gpus,
        dollars_per_hour=sum(money.values()),
        serving_use=0.5 + 0.2 * wave,
        power_watts=min(uncapped, 34_600 + float(rng.normal(0, 120))),
        uncapped_watts=uncapped,
        granted_watts=34_900.0,
        rating_watts=36_000.0,
        jobs={
            "research/pretrain": ("Succeeded" if done >= 900 else "Running", min(done, 900)),
            "research/finetune": (
                "Restarting"
                if FAILURE < t < FAILURE + 70
                else "Waiting"
                if t < -20
                else "Running"
                if t < 3300
                else "Succeeded",
                int(min(max(t + 20, 0) * 0.55 - (130 if back else 0), 1500)),
            ),
        },
        service_dollars_per_hour=money,
    )


SENTENCES = {
    "select": ("MixChosen", "chosen", "4 a10g + 2 l4 carry 4.61 req/s for a demand of 4.20 req/s at $5.63/h. Next best: 2 a100-80, $1.23/h more."),
    "scale": ("ScaleHeld", "kept", "load 3.71 req/s is within 70.0 % of the target for the 4.61 req/s planned for."),
    "place": ("ReplicaPlaced", "chosen", "chat-a10g-3: 1 GPU needed, 3 GPU free there, 2 GPU left after it; 4 nodes were fit."),
    "train": ("GangStarted", "chosen", "32 ranks on 4 h100 nodes of island ib-0, all InfiniBand."),
    "power": ("PowerClamped", "capped", "leases of 34.9 kW stay under 34.92 kW of a 36.0 kW rating."),
    "warm": ("KeptWarm", "kept", "kept warm: idle for 12 s of a keep-alive of 300 s (1 replicas copies)."),
}  # fmt: skip


def happenings(total: float) -> list[Happening]:
    """A decision log of an hour: routine lines, and what the failure caused."""
    log = []
    for second in range(-60, int(total), 10):
        for loop, every in (
            ("select", 60),
            ("scale", 30),
            ("power", 20),
            ("place", 120),
            ("warm", 90),
            ("train", 400),
        ):
            if second % every:
                continue
            code, verdict, sentence = SENTENCES[loop]
            name = (CHAT, ASSISTANT, WRITER)[second // every % 3]
            kind = {"power": "PowerDomain", "train": "TrainingJob"}.get(loop, "ModelService")
            subject = {"power": "row-a", "train": "research/pretrain"}.get(loop, name)
            log.append(
                Happening(
                    seconds=float(second), loop=loop, kind=kind, subject=subject, code=code, verdict=verdict,
                    sentence=sentence, actions=int(loop in {"place", "power"}),
                )
            )  # fmt: skip
    lost = "chat-a10g-2 is lost: its node has been silent for 3.2 s, limit 3 s; 1 replaced."
    odd = [
        (600.0, "scale", "ScaledFromZero", "chosen", WRITER, "6 req wait at the gateway and 0 replicas are ready; starting for 3 replicas.", 3),
        (FAILURE + 4, "faults", "NodeLost", "isolated", "a10g-1", "node a10g-1 has been silent for 4 s, limit 3 s: 3 replicas and 1 gang replaced.", 2),
        (FAILURE + 5, "place", "ReplicaLost", "moved", CHAT, lost, 1),
        (FAILURE + 5, "train", "GangRestarted", "moved", "research/finetune", "attempt 2 restores step 860 of 990 on 2 nodes.", 1),
        (2100.0, "scale", "ShortOfCapacity", "shed", ASSISTANT, "only 4.10 req/s of 4.40 req/s can be carried: 0 GPU were free, so 0.30 req/s is shed.", 0),
    ]  # fmt: skip
    for at, loop, code, verdict, subject, sentence, actions in odd:
        log.append(
            Happening(
                seconds=at, loop=loop, kind="ModelService", subject=subject, code=code, verdict=verdict,
                sentence=sentence, actions=actions,
            )
        )  # fmt: skip
    return sorted((h for h in log if h.seconds <= total), key=lambda h: h.seconds)


def explanations() -> list[ObjectExplanation]:
    """Explanations as the operator gives them."""
    mixes = [
        ObjectExplanation(
            kind="ModelService",
            name=name,
            headline="4 a10g + 2 l4 carry 4.61 req/s for a demand of 4.20 req/s at $5.63/h",
            sentences=[SENTENCES["select"][2], SENTENCES["scale"][2], SENTENCES["place"][2]],
            alternatives=["2 a100-80: $1.23/h more", "8 l4: TpotFloor (tpot 45 ms)", "1 h100: $1.25/h more"],
            remedies=["add 1 GPU to pool l4-on-demand: saves $0.40/h"],
        )
        for name in (CHAT, ASSISTANT, WRITER)
    ]
    return [
        *mixes,
        ObjectExplanation(
            kind="TrainingJob", name="research/pretrain", headline="32 ranks on 4 h100 nodes of one InfiniBand island",
            sentences=["The gang needs 32 GPU on one fabric; island ib-0 has 32 GPU free."],
            alternatives=["4 nodes over Ethernet: 38 % slower"], remedies=[],
        ),
        ObjectExplanation(
            kind="PowerDomain", name="row-a", headline="leases of 34.9 kW under a rating of 36.0 kW",
            sentences=["Uncapped, 10 nodes could draw 52.3 kW."], alternatives=[], remedies=["raise the rating by 16.3 kW"],
        ),
    ]  # fmt: skip


def hour(seed: int = 7, total: float = 3600.0) -> DemoRun:
    """A whole ordinary run: three services, two jobs, a failure half way, power that needs capping."""
    rng = np.random.default_rng(seed)
    rates = {CHAT: 1.9, ASSISTANT: 1.8, WRITER: 1.83}
    services = {
        CHAT: service(CHAT, rng, total=total, rate=1.9),
        ASSISTANT: service(ASSISTANT, rng, total=total, rate=1.8),
        WRITER: service(WRITER, rng, total=total, rate=1.83, start=600.0),
    }
    samples = [sample(float(t), rng, rates) for t in range(-60, int(total) + 1)]
    requests = sum(s.total for s in services.values())
    jobs = {
        "research/pretrain": JobFacts(name="research/pretrain", phase="Succeeded", step=900, steps=900),
        "research/finetune": JobFacts(
            name="research/finetune", phase="Succeeded", restarts=1, step=1500, steps=1500
        ),
    }
    return DemoRun(
        trace_name="azure2023_conv.csv",
        input_sha256="9f2c" * 16,
        seed=seed,
        replication=1,
        data_lines=requests,
        malformed_lines=0,
        nodes=24,
        gpus={"l4": 32, "a10g": 24, "a100-80": 40, "h100": 32},
        services=services,
        jobs=jobs,
        samples=samples,
        happenings=happenings(total),
        explanations=explanations(),
        single_types=[
            SingleType(
                accelerator="l4", dollars_per_hour=None, why_not="TPOT of shop/assistant: 187 ms > 120 ms"
            ),
            SingleType(
                accelerator="a10g",
                dollars_per_hour=None,
                why_not="llama-3.1-70b needs 150 GB, 4 a10g have 96 GB",
            ),
            SingleType(accelerator="a100-80", dollars_per_hour=89.21),
            SingleType(accelerator="h100", dollars_per_hour=110.08),
        ],
        node_failed="a10g-1",
        node_failed_seconds=FAILURE,
        summary=summary(requests, services, jobs),
    )


def summary(requests: int, services: dict[str, ServiceFacts], jobs: dict[str, JobFacts]) -> dict[str, object]:
    """The keys of summary.json."""
    return {
        "input_sha256": "9f2c" * 16,
        "seed": 7,
        "requests": requests,
        "served": requests,
        "rejected": 0,
        "lost": 0,
        "malformed_lines": 0,
        "output_tokens": 211 * requests,
        "inflight_at_failure": 37,
        "retried": 37,
        "services": {
            n: {
                "ready": s.ready,
                "slo_attainment": s.attained / max(s.total, 1),
                "ttft_p99": 2.9,
                "gpus": s.gpus,
            }
            for n, s in services.items()
        },
        "jobs": {n: {"phase": j.phase, "restarts": j.restarts} for n, j in jobs.items()},
        "cost_per_hour": 67.4,
        "best_single_type_cost_per_hour": 89.21,
        "over_power_seconds": 0,
        "uncapped_over_power_seconds": 1163,
        "peak_serving_use": 0.741,
        "node_failures": 1,
        "decisions": 842,
        "unexplained_decisions": 0,
        "wall_s": 74.2,
    }


def bare(**changes: object) -> DemoRun:
    """A run of which nothing is known but its name."""
    facts: dict[str, object] = {
        "trace_name": "empty.csv", "input_sha256": "", "seed": 0, "replication": 1, "data_lines": 0, "malformed_lines": 0,
    }  # fmt: skip
    return DemoRun(**{**facts, **changes})  # type: ignore[arg-type]
