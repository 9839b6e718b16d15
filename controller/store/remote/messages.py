"""From the store's answers to messages and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc
import grpc.aio
import msgspec

from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from controller.store.interface import EventType, JsonObject, Resource, Scale, WatchEvent
from runtime.channels import MIB, Limits
from wire import store_pb2 as pb

SERVICE = "plimsoll.v1.Store"

STORE_PLANE = Limits()
"""One object is 1.5 MiB at most; pages and batches of events are cut to `PAGE_BYTES`."""

PAGE_BYTES = 1 * MIB
"""From here on a page or a batch takes no further object; so a message is below 3 MiB."""

LONGEST_SENTENCE = 64_000
MOST_CAUSES = 100

_ERRORS: dict[str, type[StoreError]] = {
    error.reason: error
    for error in (
        AlreadyExists,
        BadRequest,
        Conflict,
        Forbidden,
        Gone,
        Invalid,
        NotFound,
        TooLarge,
        TooManyRequests,
        Unavailable,
    )
}
_EVENTS = {
    EventType.ADDED: pb.Event.TYPE_ADDED,
    EventType.MODIFIED: pb.Event.TYPE_MODIFIED,
    EventType.DELETED: pb.Event.TYPE_DELETED,
    EventType.BOOKMARK: pb.Event.TYPE_BOOKMARK,
}
_EVENT_TYPES = {number: kind for kind, number in _EVENTS.items()}
_REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def kind_of(resource: Resource) -> pb.Kind:
    """A kind as it is asked for."""
    return pb.Kind(group=resource.group, version=resource.version, kind=resource.kind, plural=resource.plural)


def encoded(obj: JsonObject) -> bytes:
    """An object as UTF-8 JSON. Raises `BadRequest` for what JSON cannot say."""
    try:
        return msgspec.json.encode(obj)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadRequest(f"the object cannot be written as JSON: {error}") from error


def decoded(raw: bytes) -> JsonObject:
    """An object that came over the wire. Raises `BadRequest` for anything but one JSON object."""
    try:
        obj: JsonObject = msgspec.json.decode(raw, type=dict)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"the object is not valid JSON: {error}") from error
    return obj


def fault_of(error: StoreError) -> pb.StoreFault:
    """An answer that is no success, cut to a size that fits a message."""
    return pb.StoreFault(
        reason=error.reason,
        message=error.message[:LONGEST_SENTENCE],
        causes=[
            pb.FaultCause(
                field=cause.field[:LONGEST_SENTENCE],
                reason=cause.reason,
                message=cause.message[:LONGEST_SENTENCE],
            )
            for cause in error.causes[:MOST_CAUSES]
        ],
        retry_after_seconds=getattr(error, "retry_after_seconds", 0.0),
    )


def error_of(fault: pb.StoreFault) -> StoreError:
    """The typed answer again; a reason that this version does not know is a plain `StoreError`."""
    kind = _ERRORS.get(fault.reason, StoreError)
    causes = tuple(Cause(each.field, each.reason, each.message) for each in fault.causes)
    if kind is TooManyRequests:
        return TooManyRequests(fault.message, fault.retry_after_seconds, causes)
    if kind is Unavailable:
        return Unavailable(fault.message, causes, fault.retry_after_seconds)
    return kind(fault.message, causes)


def unanswered(error: BaseException, endpoint: str, doing: str) -> StoreError:
    """What it means that no answer came: the connection, the deadline, a refusal by the door."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return Unavailable(
            f"{doing}: the operator at {endpoint} gave no answer ({str(error) or type(error).__name__})"
        )
    return refusal(error.code(), error.details() or "", endpoint, doing)


def refusal(code: grpc.StatusCode, why: str, endpoint: str, doing: str) -> StoreError:
    """The store's word for a gRPC status."""
    if code in _REFUSED:
        return Forbidden(f"{doing}: {why}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if "larger than max" in why:
            return TooLarge(f"{doing}: request or answer is too large ({why})")
        return TooManyRequests(f"{doing}: {why}")
    return Unavailable(f"{doing}: the operator at {endpoint} gave no answer ({code.name}: {why})")


def event_message(event: WatchEvent) -> pb.Event:
    """One change, on its way."""
    return pb.Event(type=_EVENTS[event.type], resource_version=event.resource_version, object=event.raw)


def events_of(message: pb.WatchReply) -> list[WatchEvent]:
    """The changes of one message; types that this version does not know are left out."""
    return [
        WatchEvent(_EVENT_TYPES[each.type], each.resource_version, each.object)
        for each in message.events
        if each.type in _EVENT_TYPES
    ]


def batches(events: Iterable[WatchEvent]) -> Iterator[pb.WatchReply]:
    """Changes in messages of about `PAGE_BYTES` at most (one object more), in order."""
    batch, size = pb.WatchReply(), 0
    for event in events:
        batch.events.append(event_message(event))
        size += len(event.raw)
        if size >= PAGE_BYTES:
            yield batch
            batch, size = pb.WatchReply(), 0
    if batch.events:
        yield batch


def scale_message(scale: Scale) -> pb.Scale:
    """The scale subresource, on its way."""
    return pb.Scale(
        name=scale.name,
        namespace=scale.namespace,
        uid=scale.uid,
        resource_version=scale.resource_version,
        spec_replicas=scale.spec_replicas,
        status_replicas=scale.status_replicas,
        selector=scale.selector,
    )


def scale_of(message: pb.Scale) -> Scale:
    """The scale subresource again."""
    return Scale(
        name=message.name,
        namespace=message.namespace,
        uid=message.uid,
        resource_version=message.resource_version,
        spec_replicas=message.spec_replicas,
        status_replicas=message.status_replicas,
        selector=message.selector,
    )
