"""Inbox, decoding and commands without a network: bounds, folding, and what is not believed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.hub import commands as cmd
from controller.hub.commands import to_wire
from controller.hub.decode import LONGEST_NAME, Decoder
from controller.hub.inbox import Inbox, SessionChange, SessionEvent
from controller.hub.messages import ACKS_KEPT, Ack, AckCode, GangSeen, NodeReport, ReplicaSeen
from wire import agent_pb2 as pb

NOW = 1_700_000_000.0


def seen(node: str, tick: int, sequence: int, **parts: object) -> NodeReport:
    return NodeReport(
        node=node, tick=tick, sequence=sequence, observed_seconds=NOW, delivered_seconds=NOW, boot_id="b",
        last_command_sequence=0, **parts,  # type: ignore[arg-type]
    )  # fmt: skip


def ack(name: str) -> Ack:
    return Ack(
        id=name, epoch=1, sequence=1, code=AckCode.DONE, message="", readback_watts=None, finished_seconds=NOW
    )


def test_a_later_report_keeps_what_it_does_not_say() -> None:
    replica = ReplicaSeen(
        name="a/b", uid="u", phase="ready", stage="", tier="awake", phase_since_seconds=0.0, fault=""
    )
    first = seen("n1", 1, 1, node_watts=500.0, replicas=(replica,), acks=(ack("a"),))
    second = seen("n1", 2, 2, node_watts=700.0, gangs=(), acks=(ack("b"),))
    both = first.then(second)
    assert (both.tick, both.sequence, both.node_watts) == (2, 2, 700.0)
    assert both.replicas == (replica,)
    assert both.gangs == ()
    assert [each.id for each in both.acks] == ["a", "b"]
    emptied = both.then(seen("n1", 3, 3, replicas=()))
    assert emptied.replicas == (), "an empty section replaces a full one"


def test_acks_of_folded_reports_are_bounded() -> None:
    report = seen("n1", 1, 1, acks=tuple(ack(str(count)) for count in range(ACKS_KEPT)))
    folded = report.then(seen("n1", 2, 2, acks=(ack("last"),)))
    assert len(folded.acks) == ACKS_KEPT
    assert folded.acks[-1].id == "last"


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["node_watts", "gangs"])), max_size=60
    ),
    st.integers(1, 10),
)
def test_a_full_inbox_folds_to_the_same_state(stream: list[tuple[str, str]], most: int) -> None:
    """What a reader ends up knowing does not depend on whether it drained in time."""
    bounded, roomy = Inbox(most_reports=most), Inbox(most_reports=10_000)
    for place, (node, part) in enumerate(stream):
        value = float(place) if part == "node_watts" else ()
        report = seen(node, place, place + 1, acks=(ack(str(place)),), **{part: value})
        bounded.put(report)
        roomy.put(report)
    assert len(bounded) <= most + 3

    def known(inbox: Inbox) -> dict[str, NodeReport]:
        known: dict[str, NodeReport] = {}
        for each in inbox.drain():
            known[each.node] = known[each.node].then(each) if each.node in known else each
        return known

    assert known(bounded) == known(roomy)


def test_drained_order_is_by_tick_node_sequence() -> None:
    reports = [seen(node, tick, 10 * tick) for tick in range(5) for node in ("n1", "n2", "n10")]
    shuffled = reports.copy()
    random.Random(7).shuffle(shuffled)
    inbox = Inbox()
    for each in shuffled:
        inbox.put(each)
    drained = [(each.tick, each.node) for each in inbox.drain()]
    assert drained == sorted(drained)
    assert inbox.drain() == []


def test_session_events_are_bounded_and_the_newest_stay() -> None:
    inbox = Inbox(most_events=2)
    for count in range(3):
        inbox.note(SessionEvent(node=str(count), change=SessionChange.LOST, at_seconds=NOW))
    assert [event.node for event in inbox.drain_sessions()] == ["1", "2"]
    assert inbox.drain_sessions() == []


def decoded(message: pb.AgentMessage, devices: int = 2) -> tuple[NodeReport, int]:
    decoder = Decoder("n1", "boot")
    first = pb.AgentMessage(observed_seconds=NOW)
    for index in range(devices):
        first.report.inventory.devices.add(uuid=f"GPU-{index}", index=index, max_watts=700)
    decoder.report(first, NOW)
    before = decoder.rejected
    return decoder.report(message, NOW), decoder.rejected - before


def telemetry(**changes: object) -> pb.AgentMessage:
    message = pb.AgentMessage(observed_seconds=NOW)
    body = message.report.telemetry
    body.gpus.watts.extend(changes.get("watts", (300.0, 310.0)))  # type: ignore[arg-type]
    body.gpus.utilisation.extend(changes.get("utilisation", ()))  # type: ignore[arg-type]
    body.gpus.clock_mhz.extend(changes.get("clock_mhz", ()))  # type: ignore[arg-type]
    body.node_watts = changes.get("node_watts", 1_000.0)  # type: ignore[assignment]
    return message


@pytest.mark.parametrize(
    ("changes", "watts", "rejected"),
    [
        pytest.param({}, (300.0, 310.0), 0, id="sound"),
        pytest.param({"watts": (math.inf, 310.0)}, (None, 310.0), 1, id="infinite watts"),
        pytest.param({"watts": (-5.0, 310.0)}, (None, 310.0), 1, id="negative watts"),
        pytest.param({"watts": (math.nan, 310.0)}, (None, 310.0), 0, id="a silent sensor is no lie"),
        pytest.param({"watts": (300.0,)}, None, 1, id="fewer entries than devices"),
        pytest.param(
            {"watts": (300.0, 310.0), "utilisation": (0.1, 0.2, 0.3)}, None, 1, id="columns disagree"
        ),
        pytest.param({"watts": (1.0,) * 1_000}, None, 1, id="a thousand devices"),
    ],
)
def test_columns_that_cannot_be_true(
    changes: dict[str, object], watts: tuple[float | None, ...] | None, rejected: int
) -> None:
    report, count = decoded(telemetry(**changes))
    assert count == rejected
    if watts is None:
        assert report.gpus is None
    else:
        assert report.gpus is not None
        assert [None if math.isnan(each) else each for each in report.gpus.watts] == list(watts)


@pytest.mark.parametrize("node_watts", [math.nan, math.inf, -1.0, 1e9])
def test_impossible_node_watts_are_left_out(node_watts: float) -> None:
    report, count = decoded(telemetry(node_watts=node_watts))
    assert report.node_watts is None
    assert count == 1


@pytest.mark.parametrize(
    ("observed", "taken", "rejected"),
    [
        pytest.param(NOW - 3, NOW - 3, 0, id="old: its age is data"),
        pytest.param(NOW + 2, NOW + 2, 0, id="a clock a little ahead"),
        pytest.param(NOW + 60, NOW, 1, id="from the future"),
        pytest.param(-1.0, NOW, 1, id="before time"),
        pytest.param(math.nan, NOW, 1, id="no number"),
    ],
)
def test_observed_times(observed: float, taken: float, rejected: int) -> None:
    report, count = decoded(pb.AgentMessage(observed_seconds=observed, report=pb.Report()))
    assert (report.observed_seconds, count) == (taken, rejected)


def test_absurd_rows_are_dropped_and_the_rest_kept() -> None:
    message = pb.AgentMessage(observed_seconds=NOW)
    body = message.report.telemetry
    body.replicas.rows.add(name="x" * 1_000_000, phase="ready")
    body.replicas.rows.add(name="", phase="ready")
    body.replicas.rows.add(
        name="shop/chat-0", phase="failed", fault="f" * 10_000, phase_since_seconds=math.inf
    )
    body.gangs.rows.add(job="a/j", job_uid="u", attempt=2, ranks=8, phase="running", step_seconds=math.nan)
    message.report.acks.add(id="ok", code=pb.ACK_CODE_DONE, readback_watts=0)
    message.report.acks.add(id="unknown code", code=99)  # type: ignore[arg-type]
    report, count = decoded(message)
    assert count == 3
    assert report.replicas is not None
    assert [row.name for row in report.replicas] == ["shop/chat-0"]
    assert len(report.replicas[0].fault) == LONGEST_NAME
    assert report.replicas[0].phase_since_seconds == 0.0
    assert report.gangs == (
        GangSeen(
            job="a/j", job_uid="u", attempt=2, ranks=8, ranks_joined=0, step=0, last_checkpoint_step=0,
            phase="running", step_seconds=0.0, fault="",
        ),
    )  # fmt: skip
    assert [(each.id, each.readback_watts) for each in report.acks] == [("ok", 0)]


def test_a_fit_with_an_infinity_is_no_fit() -> None:
    message = pb.AgentMessage(observed_seconds=NOW)
    row = message.report.telemetry.instances.rows.add(name="a/b", running=3, capped_speed=0.5)
    row.step_base_seconds = math.inf
    [instance] = decoded(message)[0].instances or ()
    assert (instance.running, instance.capped_speed, instance.step_base_seconds) == (3, 0.5, None)
    row.step_base_seconds = 0.01
    [instance] = decoded(message)[0].instances or ()
    assert (instance.step_base_seconds, instance.step_per_sequence_seconds) == (0.01, 0.0)


@pytest.mark.parametrize(
    "command",
    [
        cmd.GrantPower(watts=1_500, clock_mhz=1_200, ttl_seconds=5.0),
        cmd.StageWeights(model="m", fingerprint="f", tier="dram", source="n2", bytes=1 << 35),
        cmd.DropWeights(model="m", fingerprint="f", tier="nvme"),
        cmd.SetTier(replica="a/b", uid="u", tier="asleep_host"),
        cmd.Checkpoint(job_uid="j", attempt=3, tier="zone", interval_seconds=60.0),
        cmd.PaceGang(job_uid="j", attempt=3, period_seconds=1.0, offset_seconds=0.25),
        cmd.Probe(peer="n2", nic="mlx5_0", duration_seconds=2.0),
        cmd.Isolate(device_uuid="GPU-1", level=2, until_seconds=NOW),
    ],
    ids=lambda command: type(command).__name__,
)
def test_every_kind_reaches_the_wire_with_every_field(command: cmd.AgentCommand) -> None:
    message = to_wire(command, "1/x/2/3", 7, 9, NOW)
    message = pb.Command.FromString(message.SerializeToString())
    assert (message.id, message.epoch, message.sequence, message.deadline_seconds) == ("1/x/2/3", 7, 9, NOW)
    field = message.WhichOneof("body")
    assert field is not None
    body = getattr(message, field)
    assert {name: getattr(body, name) for name in command.__struct_fields__} == {
        name: getattr(command, name) for name in command.__struct_fields__
    }
    assert len(body.DESCRIPTOR.fields) == len(command.__struct_fields__)
