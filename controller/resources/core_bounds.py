"""What bounds the pods of a namespace: ResourceQuota and LimitRange, as far as it is read."""

from __future__ import annotations

import msgspec

from controller.resources.base import ObjectMeta
from controller.store.interface import Resource

RESOURCE_QUOTA = Resource(
    group="", version="v1", kind="ResourceQuota", plural="resourcequotas", has_status=True
)
LIMIT_RANGE = Resource(group="", version="v1", kind="LimitRange", plural="limitranges")


class QuotaSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What a namespace may use at most, as Kubernetes quantities."""

    hard: dict[str, str | int] = {}


class QuotaStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What it uses, and the bounds by which pods are held to it."""

    hard: dict[str, str | int] = {}
    used: dict[str, str | int] = {}


class ResourceQuota(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A bound on what the objects of a namespace may use together."""

    metadata: ObjectMeta
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class LimitRange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Bounds of each pod in a namespace: only that there is one, and its version."""

    metadata: ObjectMeta
