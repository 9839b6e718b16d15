"""Commands from the wire to typed structs."""

from __future__ import annotations

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


def driver_command_of(command: pb.Command) -> DriverCommand | None:
    """The command for the driver; None for a kind that this agent does not know, or a power lease."""
    match command.WhichOneof("body"):
        case "stage_weights":
            stage = command.stage_weights
            return StageWeights(
                model=stage.model,
                fingerprint=stage.fingerprint,
                tier=stage.tier,
                source=stage.source,
                bytes=stage.bytes,
            )
        case "drop_weights":
            drop = command.drop_weights
            return DropWeights(model=drop.model, fingerprint=drop.fingerprint, tier=drop.tier)
        case "set_tier":
            tier = command.set_tier
            return SetTier(replica=tier.replica, uid=tier.uid, tier=tier.tier)
        case "checkpoint":
            point = command.checkpoint
            return Checkpoint(
                job_uid=point.job_uid,
                attempt=point.attempt,
                tier=point.tier,
                interval_seconds=point.interval_seconds,
            )
        case "pace_gang":
            pace = command.pace_gang
            return PaceGang(
                job_uid=pace.job_uid,
                attempt=pace.attempt,
                period_seconds=pace.period_seconds,
                offset_seconds=pace.offset_seconds,
            )
        case "probe":
            probe = command.probe
            return Probe(peer=probe.peer, nic=probe.nic, duration_seconds=probe.duration_seconds)
        case "isolate":
            isolate = command.isolate
            return Isolate(
                device_uuid=isolate.device_uuid, level=isolate.level, until_seconds=isolate.until_seconds
            )
        case _:
            return None
