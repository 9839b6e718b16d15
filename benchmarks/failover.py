"""Two operators under load: the leader is killed, stopped cleanly, and paused until another leads.

On a real control plane, with real processes and agents over mutual TLS (`benchmarks.failover_sides`); three services
are scaled up and down all the while. A time runs from the signal to the first command of the new leader that an agent
carried out: the Lease is taken, the door open, an agent back, a power lease decided, sent, accepted and set.

Stale commands are counted at the agents: carried out although of an older epoch than that agent obeyed, or after a
later leadership began. Double writes are counted in the API server's audit log, where each operator is a user of its
own: writes of a former leader that were carried out after a later leadership began (the Lease itself, and the mark on
its own pod, apart), and pods of a service above what its user asks for when all has settled.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.base import Arguments, BenchmarkError, Figure, Plot, Result, Row, at_most
from benchmarks.failover_arena import SERVICES, WORK, Arena, arena
from benchmarks.failover_sides import SPACE, Accepted, Write, audited
from console.controlplane import ControlPlane, ControlPlaneError
from controller.observe import labels
from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE

GOAL_CRASH_SECONDS = 17.0
GOAL_CLEAN_SECONDS = 3.0
SIGNALS = {"crash": signal.SIGKILL, "clean": signal.SIGTERM, "paused": signal.SIGSTOP}
SETTLED_REPLICAS = 2
SETTLE_SECONDS = 120.0
"""How long replicas too many may take to drain and go, on a busy machine."""
AWAKE_SECONDS = 3.0
"""How long a leader that was paused is watched after it woke up."""


class Term(msgspec.Struct, frozen=True):
    """A leadership: whose, under which epoch, from when (wall time of the answered Lease write)."""

    began_seconds: float
    user: str
    epoch: int


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One change of leader: how it was brought about, when (wall time), who came, and when it was first obeyed."""

    kind: str
    began_seconds: float
    successor: str
    took_seconds: float


class Measured(msgspec.Struct, kw_only=True):
    """What the runs gave."""

    trials: list[Trial]
    accepted: list[Accepted]
    writes: list[Write]
    surplus_pods: list[str] = []


def run(args: Arguments) -> Result:
    """Measures and judges. Raises: BenchmarkError when control plane, operators or agents do not come up."""
    runs = {"crash": 1, "clean": 1, "paused": 1} if args.quick else {"crash": 10, "clean": 10, "paused": 3}
    with tempfile.TemporaryDirectory(prefix="plimsoll-failover-") as folder:
        try:
            with ControlPlane(extra=audited(Path(folder))) as plane:
                measured = asyncio.run(_measure(Path(folder), plane, runs))
        except ControlPlaneError as error:
            raise BenchmarkError(str(error)) from error
    return judge(measured)


async def _measure(folder: Path, plane: ControlPlane, runs: dict[str, int]) -> Measured:
    plan = [kind for turn in range(max(runs.values())) for kind, count in runs.items() if turn < count]
    async with arena(folder, plane) as made:
        made.begin_load()
        trials = [await _trial(made, kind) for kind in plan]
        await made.end_load()
        surplus = await _surplus(made)
        return Measured(trials=trials, accepted=made.accepted, writes=made.writes(), surplus_pods=surplus)


async def _trial(made: Arena, kind: str) -> Trial:
    """One change of leader. Both operators run again afterwards."""
    leader, other = await made.roles()
    record = await made.lease()
    epoch = record.epoch if record else 0
    began = time.time()
    leader.signal(SIGNALS[kind])
    await made.until(f"{other.name} leads", lambda: made.first_accepted(epoch, began) is not None)
    took = (made.first_accepted(epoch, began) or math.inf) - began
    if kind == "paused":
        leader.signal(signal.SIGCONT)
        await asyncio.sleep(AWAKE_SECONDS)
    else:
        await leader.ended()
        await made.start_operator(leader.name)
    return Trial(kind=kind, began_seconds=began, successor=other.name, took_seconds=took)


async def _surplus(made: Arena) -> list[str]:
    """Pods that stay above what is asked for, once everything had time to settle: those of the services with too many."""
    for index in range(SERVICES):
        await made.store.put_scale(
            MODEL_SERVICE, f"chat-{index}", WORK, replicas=SETTLED_REPLICAS, field_manager="user"
        )

    async def pods() -> list[str]:
        listed = await made.store.list(POD, WORK, label_selector=f"{labels.MANAGED_BY}=plimsoll")
        return [
            f"{p['metadata']['name']} {p['status'].get('phase')}"
            for p in listed.items
            if not p["metadata"].get("deletionTimestamp")
        ]

    async def enough() -> bool:
        return len(await pods()) >= SERVICES * SETTLED_REPLICAS

    await made.until("every service has its pods", enough)
    until, found = time.monotonic() + SETTLE_SECONDS, await pods()
    while len(found) > SERVICES * SETTLED_REPLICAS and time.monotonic() < until:
        await asyncio.sleep(0.2)
        found = await pods()
    return found if len(found) > SERVICES * SETTLED_REPLICAS else []


# ------------------------------------------------------------------------------------------------------------ judge


def terms(writes: Sequence[Write]) -> list[Term]:
    """The leaderships, by the first answered Lease write of each epoch."""
    found: list[Term] = []
    for write in writes:
        if write.resource == "leases" and write.epoch > (found[-1].epoch if found else 0):
            found.append(Term(write.at_seconds, write.user, write.epoch))
    return found


def stale_commands(accepted: Sequence[Accepted], leaderships: Sequence[Term]) -> int:
    """Commands carried out after their leadership was over."""
    obeyed: dict[str, int] = defaultdict(int)
    stale = 0
    for each in accepted:
        later = any(t.epoch > each.epoch and t.began_seconds < each.at_seconds for t in leaderships)
        stale += later or each.epoch < obeyed[each.node]
        obeyed[each.node] = max(obeyed[each.node], each.epoch)
    return stale


def late_writes(writes: Sequence[Write], leaderships: Sequence[Term]) -> list[Write]:
    """Writes of a user while another one led."""
    late = []
    for write in writes:
        if not _decided(write):
            continue
        leading = [term.user for term in leaderships if term.began_seconds < write.at_seconds]
        if leading and leading[-1] != write.user:
            late.append(write)
    return late


def _decided(write: Write) -> bool:
    """Whether a write follows from a decision: all but the Lease, and the mark on an operator's own pod."""
    return write.resource != "leases" and not (
        write.resource == "pods" and write.name.startswith(f"{SPACE}/")
    )


def first_write(trial: Trial, writes: Sequence[Write]) -> float:
    """Seconds until the successor's first decided write was carried out."""
    first = (
        write.at_seconds - trial.began_seconds
        for write in writes
        if write.user == trial.successor and write.at_seconds > trial.began_seconds and _decided(write)
    )
    return next(first, math.inf)


def p99(values: Sequence[float]) -> float:
    """Nearest rank: with ten values, the largest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]


def judge(measured: Measured) -> Result:
    """Rows and figures."""
    leaderships = terms(measured.writes)
    late = late_writes(measured.writes, leaderships)
    times = {
        kind: sorted(t.took_seconds for t in measured.trials if t.kind == kind)
        for kind in SIGNALS
        if any(t.kind == kind for t in measured.trials)
    }
    crashes = [first_write(t, measured.writes) for t in measured.trials if t.kind == "crash"]
    counts: dict[str, Figure] = {
        "stale_commands_accepted": stale_commands(measured.accepted, leaderships),
        "double_writes": len(late) + max(0, len(measured.surplus_pods) - SERVICES * SETTLED_REPLICAS),
        "crash_write_p99_s": round(p99(crashes), 3),
        **{f"{kind}_runs": len(values) for kind, values in times.items()},
        "commands": len(measured.accepted),
        "writes": len(measured.writes),
    }
    crash, clean = p99(times["crash"]), p99(times["clean"])
    return Result(
        rows=(
            at_most("crash: p99", crash, GOAL_CRASH_SECONDS, "s"),
            at_most("clean stop: p99", clean, GOAL_CLEAN_SECONDS, "s"),
            *(
                at_most(name, float(counts[name] or 0), 0)
                for name in ("stale_commands_accepted", "double_writes")
            ),
            *(Row(f"{kind}: least · median · most", _spread(values)) for kind, values in times.items()),
            Row("crash: p99 of the first write", f"{p99(crashes):.1f} s"),
            Row("leaderships", str(len(leaderships))),
            Row("commands carried out", str(counts["commands"])),
            Row("writes of the operators", str(counts["writes"])),
        ),
        figures={"crash_p99_s": round(crash, 3), "clean_p99_s": round(clean, 3), **counts},
        plots=(_plot(times),),
        remark=f"Lease 15 s, renew deadline 10 s, retry 2 s. Load average at the end: {os.getloadavg()[0]:.1f}."
        + "".join(f" Late: {write}." for write in late[:3])
        + (f" Too many pods among {', '.join(measured.surplus_pods)}." if measured.surplus_pods else ""),
    )


def _spread(values: Sequence[float]) -> str:
    return f"{values[0]:.1f} · {values[len(values) // 2]:.1f} · {values[-1]:.1f} s"


def _plot(times: dict[str, list[float]]) -> Plot:
    return Plot(
        name="failover",
        title="From the signal to the new leader's first command carried out",
        x_label="run",
        y_label="seconds",
        series={
            kind: tuple((float(index + 1), value) for index, value in enumerate(values))
            for kind, values in times.items()
        },
    )
