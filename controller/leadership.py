"""The leader's epoch: raised by compare-and-swap on a Lease before the first command.

Epoch = max(kept on the Lease, obeyed by any agent, in the ledger) + 1, so that a deleted Lease cannot
lock everybody out (DESIGN §3.3). Waiting for another holder's lease to run out comes with the API server.
"""

from __future__ import annotations

from controller.observe import labels
from controller.resources.core import LEASE, NAMESPACE
from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError
from controller.store.interface import JsonObject, Store
from controller.telling.clock_text import rfc3339_micro

LEASE_NAME = "plimsoll-operator"
LEASE_SECONDS = 15
TRIES = 5
"""Compare-and-swap attempts before giving up: each lost one means that somebody else moved it."""


class NotLeader(Exception):
    """Another operator keeps taking the lease."""


def _epoch_of(lease: JsonObject | None) -> int:
    text = ((lease or {}).get("metadata", {}).get("annotations") or {}).get(labels.EPOCH, "0")
    return int(text) if text.isdecimal() else 0


async def take_epoch(store: Store, namespace: str, identity: str, at_least: int, now_seconds: float) -> int:
    """Take the lease under a new epoch above `at_least` and the one kept; returns it.

    Raises NotLeader when the swap is lost five times, and the store's errors.
    """
    for _ in range(TRIES):
        try:
            lease: JsonObject | None = await store.get(LEASE, LEASE_NAME, namespace)
        except NotFound:
            lease = None
        epoch = max(_epoch_of(lease), at_least) + 1
        wanted = _lease(lease, namespace, identity, epoch, now_seconds)
        try:
            if lease is None:
                await _ensure_namespace(store, namespace)
                await store.create(LEASE, wanted, field_manager=labels.MANAGER)
            else:
                await store.replace(LEASE, wanted, field_manager=labels.MANAGER)
        except (AlreadyExists, Conflict):
            continue
        return epoch
    raise NotLeader(
        f"lease {namespace}/{LEASE_NAME} changed hands {TRIES} times while {identity} asked for it"
    )


async def release(store: Store, namespace: str, identity: str, now_seconds: float) -> bool:
    """Give the lease up at a planned end, so that a successor need not wait for it to run out.

    The epoch stays on it. False when another holds it, or the store does not take it: then it runs out by itself.
    """
    try:
        lease = await store.get(LEASE, LEASE_NAME, namespace)
        if (lease.get("spec") or {}).get("holderIdentity") != identity:
            return False
        stamp = rfc3339_micro(now_seconds)
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": stamp}
        await store.replace(LEASE, lease, field_manager=labels.MANAGER)
    except StoreError:
        return False
    return True


def _lease(
    old: JsonObject | None, namespace: str, identity: str, epoch: int, now_seconds: float
) -> JsonObject:
    metadata = dict((old or {}).get("metadata", {})) or {"name": LEASE_NAME, "namespace": namespace}
    metadata["annotations"] = {**metadata.get("annotations", {}), labels.EPOCH: str(epoch)}
    stamp = rfc3339_micro(now_seconds)
    transitions = int(((old or {}).get("spec") or {}).get("leaseTransitions") or 0) + 1
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": transitions,
        },
    }


async def _ensure_namespace(store: Store, namespace: str) -> None:
    try:
        await store.create(
            NAMESPACE,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            field_manager=labels.MANAGER,
        )
    except AlreadyExists:
        return
