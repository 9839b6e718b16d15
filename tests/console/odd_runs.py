"""Runs a report must survive: without failures, jobs, requests, answers or names, and with hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from console.demo.run_data import DemoRun, Happening, JobFacts, ObjectExplanation, ServiceFacts, SingleType
from tests.console.demo_runs import CHAT, HOSTILE, WRITER, bare, hour


def changed(run: DemoRun, **fields: object) -> DemoRun:
    return msgspec.structs.replace(run, **fields)


@cache
def ordinary() -> DemoRun:
    return hour()


def short_run() -> DemoRun:
    """Forty seconds: the axis counts seconds, and one service never gets a request."""
    run = hour(total=40.0)
    return changed(run, node_failed="", services=run.services | {WRITER: quiet(run)})


def quiet(run: DemoRun) -> ServiceFacts:
    return msgspec.structs.replace(
        run.services[WRITER],
        arrived_seconds=[],
        ttft_seconds=[],
        tpot_seconds=[],
        attained=0,
        total=0,
        ready=0,
        gpus={},
    )


def unanswered(every: int) -> DemoRun:
    """Every n-th request of one service never answered."""
    run = hour(total=700.0)
    facts = run.services[CHAT]
    lost = [float("nan") if i % every == 0 else t for i, t in enumerate(facts.ttft_seconds)]
    tpot = [float("nan") if i % every == 0 else t for i, t in enumerate(facts.tpot_seconds)]
    facts = msgspec.structs.replace(facts, ttft_seconds=lost, tpot_seconds=tpot)
    return changed(run, services=run.services | {CHAT: facts}, summary={})


def renamed(name: str) -> DemoRun:
    """Everything that has a name is called `name`."""
    run = hour(total=90.0)
    facts = msgspec.structs.replace(run.services[CHAT], name=name, model=name, gpus={name: 2})
    samples = [
        msgspec.structs.replace(
            s, load_per_second={name: 1.0}, held={name: 3}, replicas={name: {name: 2}}, gpus={name: 2},
            jobs={name: (name, 3)},
        )
        for s in run.samples
    ]  # fmt: skip
    happening = Happening(
        seconds=5.0, loop=name, kind=name, subject=name, code=name, verdict=name, sentence=name, actions=1
    )
    why = ObjectExplanation(
        kind=name, name=name, headline=name, sentences=[name], alternatives=[name], remedies=[name]
    )
    return changed(
        run, trace_name=name, input_sha256=name, services={name: facts}, samples=samples, summary={},
        jobs={name: JobFacts(name=name, phase=name, restarts=1, step=3, steps=9)}, happenings=[happening] * 3,
        explanations=[why], gpus={name: 4}, node_failed=name, node_failed_seconds=30.0, malformed=[(3, name)],
        single_types=[SingleType(accelerator=name, dollars_per_hour=9.0, why_not=name)],
    )  # fmt: skip


def many() -> DemoRun:
    """Twelve services on eight unknown GPU types."""
    run = hour(total=120.0)
    names = [f"team-{i}/service-{i}" for i in range(12)]
    kinds = [f"gpu-{i}" for i in range(8)]
    services = {n: msgspec.structs.replace(run.services[CHAT], name=n) for n in names}
    samples = [
        msgspec.structs.replace(
            s, load_per_second=dict.fromkeys(names, 2.0), held={},
            replicas={n: dict.fromkeys(kinds[: 1 + i % 8], 1) for i, n in enumerate(names)}, gpus=dict.fromkeys(kinds, 3),
        )
        for s in run.samples
    ]  # fmt: skip
    jobs = {
        f"lab/job-{i}": JobFacts(name=f"lab/job-{i}", phase="Running", step=i, steps=20) for i in range(11)
    }
    rivals = [SingleType(accelerator=k, dollars_per_hour=10.0 + i) for i, k in enumerate(kinds)]
    return changed(run, services=services, samples=samples, jobs=jobs, single_types=rivals, summary={})


RUNS: dict[str, Callable[[], DemoRun]] = {
    "an ordinary hour": ordinary,
    "nothing known but its name": bare,
    "a single sample": lambda: changed(hour(total=60.0), samples=hour(total=60.0).samples[:1]),
    "forty seconds, one service without requests": short_run,
    "no node failed": lambda: changed(hour(total=700.0), node_failed=""),
    "no training job": lambda: changed(
        hour(total=90.0), jobs={}, samples=[msgspec.structs.replace(s, jobs={}) for s in hour(total=90.0).samples]
    ),
    "no power domain": lambda: changed(
        hour(total=90.0), samples=[msgspec.structs.replace(s, rating_watts=0.0) for s in hour(total=90.0).samples]
    ),
    "every seventh request never answered": lambda: unanswered(7),
    "no request ever answered": lambda: unanswered(1),
    "no single type can": lambda: changed(hour(total=90.0), single_types=[SingleType(accelerator="l4", dollars_per_hour=None)]),
    "no summary at all": lambda: changed(hour(total=700.0), summary={}),
    "a summary of the wrong types": lambda: changed(hour(total=90.0), summary={"services": 3, "served": "many", "wall_s": None}),
    "a hundred seconds": lambda: changed(hour(total=100.0), node_failed_seconds=60.0),
    "many services and unknown GPUs": many,
    "hostile names": lambda: renamed(HOSTILE),
    "names of a megabyte": lambda: renamed("n" * 1_000_000),
    "empty names": lambda: renamed(""),
}  # fmt: skip
