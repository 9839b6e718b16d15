"""Commands from the wire to typed structs."""

from __future__ import annotations

from collections.abc import Callable

from agent.node.commands import Stamp
from agent.node.drivers.base import (
    Checkpoint,
    DriverCommand,
    DropWeights,
    Isolate,
    PaceGang,
    Probe,
    SetTier,
    StageWeights,
)
from agent.node.lease import Grant
from wire import agent_pb2 as pb


def stamp_of(command: pb.Command) -> Stamp:
    """Id, epoch, sequence and deadline of a command."""
    return Stamp(
        id=command.id,
        epoch=command.epoch,
        sequence=command.sequence,
        deadline_seconds=command.deadline_seconds,
    )


def grant_of(command: pb.Command) -> Grant | None:
    """The power lease a command grants; None when it is another kind."""
    if command.WhichOneof("body") != "grant_power":
        return None
    body = command.grant_power
    return Grant(
        epoch=command.epoch,
        sequence=command.sequence,
        watts=body.watts,
        clock_mhz=body.clock_mhz,
        ttl_seconds=body.ttl_seconds,
    )


def _stage_weights(command: pb.Command) -> StageWeights:
    stage = command.stage_weights
    return StageWeights(
        model=stage.model,
        fingerprint=stage.fingerprint,
        tier=stage.tier,
        source=stage.source,
        bytes=stage.bytes,
    )


def _drop_weights(command: pb.Command) -> DropWeights:
    drop = command.drop_weights
    return DropWeights(model=drop.model, fingerprint=drop.fingerprint, tier=drop.tier)


def _set_tier(command: pb.Command) -> SetTier:
    tier = command.set_tier
    return SetTier(replica=tier.replica, uid=tier.uid, tier=tier.tier)


def _checkpoint(command: pb.Command) -> Checkpoint:
    point = command.checkpoint
    return Checkpoint(
        job_uid=point.job_uid,
        attempt=point.attempt,
        tier=point.tier,
        interval_seconds=point.interval_seconds,
    )


def _pace_gang(command: pb.Command) -> PaceGang:
    pace = command.pace_gang
    return PaceGang(
        job_uid=pace.job_uid,
        attempt=pace.attempt,
        period_seconds=pace.period_seconds,
        offset_seconds=pace.offset_seconds,
    )


def _probe(command: pb.Command) -> Probe:
    probe = command.probe
    return Probe(peer=probe.peer, nic=probe.nic, duration_seconds=probe.duration_seconds)


def _isolate(command: pb.Command) -> Isolate:
    isolate = command.isolate
    return Isolate(device_uuid=isolate.device_uuid, level=isolate.level, until_seconds=isolate.until_seconds)


_FOR_THE_DRIVER: dict[str | None, Callable[[pb.Command], DriverCommand]] = {
    "stage_weights": _stage_weights,
    "drop_weights": _drop_weights,
    "set_tier": _set_tier,
    "checkpoint": _checkpoint,
    "pace_gang": _pace_gang,
    "probe": _probe,
    "isolate": _isolate,
}


def driver_command_of(command: pb.Command) -> DriverCommand | None:
    """The command for the driver; None for a kind that this agent does not know, or a power lease."""
    read = _FOR_THE_DRIVER.get(command.WhichOneof("body"))
    return None if read is None else read(command)
