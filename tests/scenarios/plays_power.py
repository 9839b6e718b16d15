"""Power: leases that never add up to more than a breaker carries, and end by themselves."""

from __future__ import annotations

import re

from tests.scenarios.props import domain, fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import Seen
from tests.scenarios.stage import Stage

ROW_A, ROW_DOMAIN = "row-a", "PowerDomain/row-a"
BERT = "lab/bert"
LEASE_SECONDS = 5
ACTUATION_SECONDS = 1

PAIR = fleet(h100=2)
SAFE_WATTS = sum(node.safe_watts for node in PAIR.nodes)
MOST_WATTS = sum(node.server().max_watts for node in PAIR.nodes)
RATING_WATTS = (SAFE_WATTS + MOST_WATTS) // 2
"""More than the safe caps, less than what two training nodes want."""


def computes(seen: Seen) -> bool:
    """Whether the gang has done some steps."""
    return int(seen.status("TrainingJob", BERT).get("step", 0)) > 0


def leased(stage: Stage) -> dict[str, int]:
    """Watts of the nodes that hold a lease by their own agent."""
    nodes = stage.cluster.fleet.nodes.items()
    return {name: n.agent.lease.watts for name, n in nodes if n.agent is not None and n.agent.lease.active}


def drawn(stage: Stage) -> float:
    """What all nodes really draw."""
    return stage.cluster.fleet.true_power_watts(stage.cluster.fleet.nodes)


async def most_drawn(stage: Stage, seconds: int) -> float:
    """The most they draw in the seconds to come."""
    most = 0.0
    for _ in range(seconds):
        await stage.second()
        most = max(most, drawn(stage))
    return most


async def _clamp(stage: Stage) -> None:
    await stage.until(computes, 90, "the gang computes")
    wanted = 0.0
    for _ in range(20):
        await stage.second()
        wanted = max(wanted, stage.cluster.fleet.uncapped_power_watts(stage.cluster.fleet.nodes))
    assert wanted > RATING_WATTS, "nothing had to be held back: this shows nothing"
    assert len(leased(stage)) == 2
    assert stage.watchman.worst_watts[ROW_A] > SAFE_WATTS
    assert len(set(leased(stage).values())) == 1, "the nodes of one gang have equal caps"


CLAMP = Scenario(
    name="power clamp",
    fleet=PAIR,
    manifests=manifests(domain(ROW_A, RATING_WATTS), job("bert", steps=5000)),
    script=_clamp,
    final={
        ROW_DOMAIN: {
            "status.phase": "Capped",
            "status.nodes": 2,
            "status.limitWatts": int(RATING_WATTS * 0.97),
            "conditions.Planned.message": re.compile(
                r"clamped to \d+ W where \d+ W was asked for by 2 nodes"
            ),
        }
    },
    events={ROW_A: frozenset({"PowerClamped"})},
)


async def _expires(stage: Stage) -> None:
    """The operator dies and nobody takes over: every node falls to its safe cap by itself."""
    await stage.until(computes, 90, "the gang computes")
    assert await most_drawn(stage, 5) > SAFE_WATTS
    assert len(leased(stage)) == 2
    await stage.halt()
    await most_drawn(
        stage, LEASE_SECONDS + ACTUATION_SECONDS
    )  # a meter's reading is the mean since the last one
    assert not leased(stage)
    unled = await most_drawn(stage, 8)
    assert unled <= SAFE_WATTS, f"{unled:.0f} W without a lease, {SAFE_WATTS} W are safe"
    await stage.resume()
    await stage.until(lambda _: len(leased(stage)) == 2, 10, "the next operator grants again")
    epochs = {n.agent.lease.epoch for n in stage.cluster.fleet.nodes.values() if n.agent is not None}
    assert epochs == {stage.operator.epoch}


EXPIRES = Scenario(
    name="leases end by themselves",
    fleet=PAIR,
    manifests=manifests(domain(ROW_A, RATING_WATTS), job("bert", steps=5000)),
    script=_expires,
    final={ROW_DOMAIN: {"status.phase": "Capped"}},
    converges=False,
)


async def _silent(stage: Stage) -> None:
    """One agent cannot be reached: it falls to safe, and what it may still draw stays charged."""
    await stage.until(computes, 90, "the gang computes")
    await stage.seconds(5)
    await stage.partition("h100-00")
    await stage.seconds(LEASE_SECONDS + ACTUATION_SECONDS)
    assert "h100-00" not in leased(stage)
    stage.heal("h100-00")
    await stage.until(lambda _: len(leased(stage)) == 2, 30, "it is granted a lease again")


SILENT = Scenario(
    name="an agent without its hub falls to safe watts",
    fleet=PAIR,
    manifests=manifests(domain(ROW_A, RATING_WATTS), job("bert", steps=5000)),
    script=_silent,
    events={ROW_A: frozenset({"PowerClamped"})},
)


# ------------------------------------------------------------------------------------------ domains that are wrong


async def _no_grants(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready("shop/chat") == 1, 60, "serving goes on")
    await stage.seconds(5)
    assert not leased(stage)
    assert not stage.diary.did("GrantPower", "sent")


def refused(pattern: str) -> dict[str, object]:
    """A domain that cannot be acted on, and the sentence that says why."""
    return {
        "status.phase": "Refused",
        "conditions.Accepted.status": "False",
        "conditions.Accepted.reason": "SpecInvalid",
        "conditions.Accepted.message": re.compile(pattern),
    }


SERVES = service("chat", "minReplicas: 1", on="h100")
CYCLE = Scenario(
    name="power domains in a cycle",
    fleet=PAIR,
    manifests=manifests(
        domain("a", 5000, "parent: b"), domain("b", 9000, "parent: a", members="nodes: []"), SERVES
    ),
    script=_no_grants,
    final={
        "PowerDomain/a": refused(r"its parents form a cycle \(a > b > a\)"),
        "PowerDomain/b": refused(r"its parents form a cycle \(b > a > b\)"),
    },
    events={"a": frozenset({"SpecInvalid"}), "b": frozenset({"SpecInvalid"})},
)
TWICE = Scenario(
    name="a node in two power domains",
    fleet=PAIR,
    manifests=manifests(
        domain("a", 5000, members="nodes: [h100-00, h100-01]"),
        domain("b", 5000, members="nodes: [h100-01]"),
        SERVES,
    ),
    script=_no_grants,
    final={
        "PowerDomain/a": refused(r"node h100-01 is a member of b too; a node draws through one domain"),
        "PowerDomain/b": refused(r"node h100-01 is a member of a too"),
    },
    events={"a": frozenset({"SpecInvalid"})},
)


async def _bad_config(stage: Stage) -> None:
    await stage.until(lambda _: len(leased(stage)) == 2, 20, "leases are granted")
    wrong = {"policy": {"name": "static_clamp", "config": {"ttlSeconds": "for ever"}}}
    await stage.patch("PowerDomain", ROW_A, {"spec": wrong})
    await stage.seconds(10)
    assert len(leased(stage)) == 2, "the last good configuration stays in force"


BAD_CONFIG = Scenario(
    name="a power policy that is configured wrongly",
    fleet=PAIR,
    manifests=manifests(domain(ROW_A, RATING_WATTS), SERVES),
    script=_bad_config,
    final={
        ROW_DOMAIN: {
            "conditions.Accepted.status": "False",
            "conditions.Accepted.reason": "PolicyConfigInvalid",
            "conditions.Accepted.message": re.compile(
                r"config of power policy 'static_clamp': .*ttlSeconds.*its fields are ttl_seconds.*last good configuration"
            ),
        }
    },
    events={ROW_A: frozenset({"PolicyConfigInvalid"})},
)

ALL = [CLAMP, EXPIRES, SILENT, CYCLE, TWICE, BAD_CONFIG]
