"""Options of channels and servers, and when to try again. One place, so that every stream has the same limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio
import msgspec

from runtime.authority import Credentials, Identity
from runtime.tls import channel_credentials

Options = tuple[tuple[str, int | str], ...]

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the type stubs
"""What `read` of a stream gives when the other side has said all."""

KIB = 1024
MIB = 1024 * KIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and times of one kind of stream.

    `receive_bytes` bounds one message: a larger one ends the call it came on with RESOURCE_EXHAUSTED, and no other.
    A peer that answers no keepalive for `keepalive_timeout_seconds` is gone (gRPC has a second timer for the same ping,
    of a minute unless told otherwise: measured on a peer that was stopped). `connect_seconds` bounds a dial.
    """

    receive_bytes: int = 4 * MIB
    send_bytes: int = 4 * MIB
    keepalive_seconds: float = 10.0
    keepalive_timeout_seconds: float = 5.0
    connect_seconds: float = 5.0


NODE_PLANE = Limits()
"""Agents and hub: an inventory is some 10 kB, a report one."""

REQUEST_PLANE = Limits(receive_bytes=16 * MIB, send_bytes=16 * MIB)
"""Gateway, engines, clients: a frame holds all that a window has for a node."""


def channel_options(limits: Limits, peer: Identity | None = None) -> Options:
    """Options of a dialling side. `peer` is who the server's certificate must name, whatever address was dialled.

    Each channel keeps its connection to itself: gRPC would otherwise share one between all channels of a process
    that have equal options, and with it the identity of the first.
    """
    named: Options = (("grpc.ssl_target_name_override", peer.dns),) if peer else ()
    return (
        *named,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", limits.receive_bytes),
        ("grpc.max_send_message_length", limits.send_bytes),
        ("grpc.keepalive_time_ms", int(limits.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.keepalive_timeout_seconds * 1000)),
        ("grpc.http2.ping_timeout_ms", int(limits.keepalive_timeout_seconds * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_reconnect_backoff_ms", 2000),
    )


def server_options(limits: Limits) -> Options:
    """Options of a serving side. A port in use is an error, not something to share."""
    return (
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.receive_bytes),
        ("grpc.max_send_message_length", limits.send_bytes),
        ("grpc.keepalive_time_ms", int(limits.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.keepalive_timeout_seconds * 1000)),
        ("grpc.http2.ping_timeout_ms", int(limits.keepalive_timeout_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(limits.keepalive_seconds * 500)),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_concurrent_streams", 64),
        ("grpc.server_handshake_timeout_ms", int(limits.connect_seconds * 2000)),
    )


def dial(
    endpoint: str, credentials: Credentials, peer: Identity, limits: Limits = NODE_PLANE
) -> grpc.aio.Channel:
    """A channel to `endpoint` (host:port) that accepts only `peer` there. Connects when first used."""
    return grpc.aio.secure_channel(
        endpoint, channel_credentials(credentials), options=channel_options(limits, peer)
    )


class Backoff:
    """Decorrelated jitter: each wait is drawn between `base_seconds` and three times the last one, capped.

    A thousand agents whose hub restarts come back spread out, and one that fails alone soon tries seldom.
    `draw(low, high)` is the caller's random source (`random.Random(seed).uniform`).
    """

    __slots__ = ("_base", "_cap", "_draw", "_last")

    def __init__(
        self, draw: Callable[[float, float], float], base_seconds: float = 0.2, cap_seconds: float = 4.0
    ) -> None:
        self._draw = draw
        self._base = base_seconds
        self._cap = cap_seconds
        self._last = base_seconds

    def next_seconds(self) -> float:
        """How long to wait before the next try."""
        self._last = min(self._cap, self._draw(self._base, max(self._base, self._last * 3.0)))
        return self._last

    def reset(self) -> None:
        """After a success: the next failure starts small again."""
        self._last = self._base
