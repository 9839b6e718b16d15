"""A kubelet's pod-resources API answering from a record, over a unix socket.

The records are composed as the documents of the API, of NVIDIA's device plugin and of its resource driver describe
the answers; they were not captured on a machine of ours. `bytes_of_upstream` writes messages by hand, field by field
with upstream's numbers, so that our own contract is not what proves itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from wire import podresources_pb2 as pb

LIST = "/v1.PodResourcesLister/List"
ALLOCATABLE = "/v1.PodResourcesLister/GetAllocatableResources"

UUIDS = tuple(f"GPU-5f2c0a51-77a0-4d8b-9c11-0000000000{index:02d}" for index in range(4))


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of a message, as the encoding has it."""
    size, varint = len(payload), b""
    while size > 0x7F:
        varint += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + payload


def bytes_of_upstream(namespace: str, name: str, container: str, resource: str, *ids: str) -> bytes:
    """A ListPodResourcesResponse of one pod: numbers 1 and 2 of ContainerDevices, 1 and 2 of ContainerResources,
    1 to 3 of PodResources, and memory (4) and cpus (3), which we do not read."""
    devices = field(1, resource.encode()) + b"".join(field(2, each.encode()) for each in ids)
    memory = field(1, b"memory")
    inside = field(1, container.encode()) + field(2, devices) + field(3, b"\x01\x02") + field(4, memory)
    pod = field(1, name.encode()) + field(2, namespace.encode()) + field(3, inside)
    return field(1, pod)


class RecordedKubelet:
    """Answers with bytes; `None` for a method it does not know."""

    def __init__(self, listed: bytes | None, allocatable: bytes | None = None) -> None:
        self.answers = {LIST: listed, ALLOCATABLE: allocatable}
        self.hangs = False
        self.code: grpc.StatusCode | None = None
        self.asked: list[str] = []
        self._server: Any = None

    async def start(self, socket: Path) -> None:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        assert self._server.add_insecure_port(f"unix:{socket}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def answer(self, method: str, context: Any) -> bytes:
        self.asked.append(method)
        if self.hangs:
            await asyncio.Event().wait()
        if self.code is not None:
            await context.abort(self.code, "rejected by rate limit")
        found = self.answers[method]
        assert found is not None
        return found


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, kubelet: RecordedKubelet) -> None:
        self._kubelet = kubelet

    def service(self, call: Any) -> Any:
        method = call.method
        if self._kubelet.answers.get(method) is None:
            return None

        async def answer(request: bytes, context: Any) -> bytes:
            return await self._kubelet.answer(method, context)

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def serving(kubelet: RecordedKubelet, socket: Path) -> AsyncIterator[RecordedKubelet]:
    await kubelet.start(socket)
    try:
        yield kubelet
    finally:
        await kubelet.stop()


def listed(*pods: tuple[str, str, list[str]]) -> bytes:
    """An answer of pods, each with one container: (namespace/name, resource, device ids)."""
    answer = pb.ListPodResourcesResponse()
    for key, resource, ids in pods:
        namespace, _, name = key.partition("/")
        container = answer.pod_resources.add(name=name, namespace=namespace).containers.add(name="main")
        container.devices.add(resource_name=resource, device_ids=ids)
    return answer.SerializeToString()


def allocatable(**resources: list[str]) -> bytes:
    answer = pb.AllocatableResourcesResponse()
    for name, ids in resources.items():
        answer.devices.add(resource_name=f"nvidia.com/{name}", device_ids=ids)
    return answer.SerializeToString()
