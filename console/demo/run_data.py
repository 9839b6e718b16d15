"""What a demo run leaves behind: everything the report and the summary are made from."""

from __future__ import annotations

import msgspec


class ServiceFacts(msgspec.Struct, kw_only=True):
    """A service over the run; latencies per request in order of arrival, NaN where it never answered."""

    name: str
    model: str
    ttft_objective_seconds: float
    tpot_objective_seconds: float
    percentile: float
    arrived_seconds: list[float] = []
    ttft_seconds: list[float] = []
    tpot_seconds: list[float] = []
    attained: int = 0
    total: int = 0
    ready: int = 0
    gpus: dict[str, int] = {}


class JobFacts(msgspec.Struct, kw_only=True):
    """A training job at the end, with its phases over time: (seconds, phase, step)."""

    name: str
    phase: str = ""
    restarts: int = 0
    step: int = 0
    steps: int = 0
    history: list[tuple[float, str, int]] = []


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one moment, `seconds` after the trace's first arrival.

    `dollars_per_hour` is what the GPUs that serve cost; `service_dollars_per_hour` splits it, where that is known.
    """

    seconds: float
    load_per_second: dict[str, float]
    held: dict[str, int]
    replicas: dict[str, dict[str, int]]
    gpus: dict[str, int]
    dollars_per_hour: float
    serving_use: float
    power_watts: float
    uncapped_watts: float
    granted_watts: float
    rating_watts: float
    jobs: dict[str, tuple[str, int]]
    service_dollars_per_hour: dict[str, float] = {}


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the timeline of decisions: when, who decided, about what, the code and the sentence."""

    seconds: float
    loop: str
    kind: str
    subject: str
    code: str
    verdict: str
    sentence: str
    actions: int = 0


class ObjectExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """The explanation of one object: headline, sentences, what was not chosen and why, how to relax it."""

    kind: str
    name: str
    headline: str
    sentences: list[str]
    alternatives: list[str]
    remedies: list[str]


class SingleType(msgspec.Struct, frozen=True, kw_only=True):
    """What serving everything on one GPU type alone would cost; None where it cannot keep the objectives."""

    accelerator: str
    dollars_per_hour: float | None
    why_not: str = ""


class DemoRun(msgspec.Struct, kw_only=True):
    """A whole run. `seconds` counts from the trace's first arrival; the warm-up before it is negative."""

    trace_name: str
    input_sha256: str
    seed: int
    replication: int
    data_lines: int
    malformed_lines: int
    malformed: list[tuple[int, str]] = []
    out_of_order: int = 0
    nodes: int = 0
    gpus: dict[str, int] = {}
    services: dict[str, ServiceFacts] = {}
    jobs: dict[str, JobFacts] = {}
    samples: list[Sample] = []
    happenings: list[Happening] = []
    explanations: list[ObjectExplanation] = []
    single_types: list[SingleType] = []
    node_failed: str = ""
    node_failed_seconds: float = 0.0
    summary: dict[str, object] = {}
