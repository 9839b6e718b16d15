"""What is written of attempts in a TrainingJob's status, by compare-and-swap, before anything is done to pods."""

from __future__ import annotations

from typing import Protocol

from cluster.base import Ref
from controller.actor.pods import split_key
from controller.observe import labels
from controller.resources.kinds import TRAINING_JOB
from controller.store.errors import Conflict
from controller.store.interface import JsonObject, Resource, Store


class OwnWrites(Protocol):
    """Who must know of our own writes before deciding again: the caches."""

    def wrote(self, resource: Resource, obj: JsonObject) -> None:
        """A write was answered with this object."""
        ...

    def doubted(self, resource: Resource, key: str) -> None:
        """The answer to a creation was lost: the object may be there."""
        ...


async def claim_attempt(store: Store, writes: OwnWrites, job: Ref, attempt: int, failed: int = 0) -> None:
    """Write the attempt number before any pod exists: a crash in between wastes a number, never doubles a gang.

    By compare-and-swap on what the store has now: a number is claimed once, whatever our cache believes, so that
    pods of one attempt are of one layout. `failed` is the attempt that is counted as a failure with it (0: none).
    Raises Conflict where the number is taken.
    """
    found = await _job(store, job)
    status = found.get("status", {})
    taken = int(status.get("attempt", 0))
    if taken >= attempt:
        raise Conflict(f"attempt {attempt} of {job.name} cannot be claimed: the store has {taken} already")
    claimed = {"attempt": attempt, "restarts": int(status.get("restarts", 0))}
    await _write(store, writes, job, found, claimed | _counted(status, failed))


async def count_failure(store: Store, writes: OwnWrites, job: Ref, attempt: int) -> None:
    """Count an attempt as failed, once, before its pods are deleted: nobody could tell afterwards.

    Raises Conflict where the job changed meanwhile, and whatever the store raises.
    """
    found = await _job(store, job)
    changed = _counted(found.get("status", {}), attempt)
    if changed:
        await _write(store, writes, job, found, changed)


def _counted(status: JsonObject, failed: int) -> JsonObject:
    """The change that counts an attempt as failed; empty when it is none, or counted already."""
    if failed <= int(status.get("failedAttempt", 0)):
        return {}
    return {"restarts": int(status.get("restarts", 0)) + 1, "failedAttempt": failed}


async def _job(store: Store, job: Ref) -> JsonObject:
    namespace, name = split_key(job.name)
    return await store.get(TRAINING_JOB, name, namespace)


async def _write(store: Store, writes: OwnWrites, job: Ref, found: JsonObject, status: JsonObject) -> None:
    namespace, name = split_key(job.name)
    patched = await store.patch(
        TRAINING_JOB,
        name,
        {"status": status},
        namespace,
        field_manager=labels.MANAGER,
        uid=job.uid,
        resource_version=found["metadata"]["resourceVersion"],
        subresource="status",
    )
    writes.wrote(TRAINING_JOB, patched)
