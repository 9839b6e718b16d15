"""What NVML says of one device, each call on its own: a board answers some questions and not others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent.node.drivers.base import Device, DriverError

T = TypeVar("T")
LADDER_ENTRIES = 32
MILLI = 1000

NOT_SUPPORTED = 3
NO_PERMISSION = 4
GPU_IS_LOST = 15


class Board:
    """One GPU, held by its UUID: indices move when a board is lost, UUIDs do not."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        self.uuid = uuid
        self.lost = False

    def ask(self, name: str, *arguments: object) -> Any:
        """Calls `nvmlDevice<name>` on this board; None where it does not answer that question.

        A board that has fallen off the bus is marked lost.
        """
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(self.uuid)
            return getattr(self._nvml, f"nvmlDevice{name}")(handle, *arguments)
        except self._nvml.NVMLError as error:
            self.lost = self.lost or error.value == GPU_IS_LOST
            return None

    def order(self, name: str, *arguments: object) -> None:
        """Calls a setter. Raises: DriverError with what to do, also when the handle is no longer this board's."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(self.uuid)
            getattr(self._nvml, f"nvmlDevice{name}")(handle, *arguments)
        except self._nvml.NVMLError as error:
            raise DriverError(self._sentence(name, error)) from error
        if self._uuid_of(handle) != self.uuid:
            raise DriverError(
                f"The handle of {self.uuid} is another board's after {name}; nothing more is set."
            )

    def watts(self, name: str) -> float | None:
        """An answer in milliwatts, as watts."""
        answer = self.ask(name)
        return None if answer is None else answer / MILLI

    def described(self, index: int, clique: int, sysfs: Path) -> Device:
        """The board as inventory. Raises: DriverError when it does not tell its power range."""
        limits = self.ask("GetPowerManagementLimitConstraints")
        default = self.ask("GetPowerManagementDefaultLimit")
        memory = self.ask("GetMemoryInfo")
        if limits is None or default is None:
            raise DriverError(
                f"{self.uuid} does not tell its power limits; without them it can neither be capped nor counted."
            )
        address = _pci_address(self.ask("GetPciInfo"))
        fault = self.fault()
        ladder = self._ladder()
        return Device(
            uuid=self.uuid,
            index=index,
            product=_text(self.ask("GetName")),
            memory_bytes=int(memory.total) if memory is not None else 0,
            min_watts=-(-int(limits[0]) // MILLI),
            max_watts=int(limits[1]) // MILLI,
            default_watts=int(default) // MILLI,
            max_clock_mhz=int(self.ask("GetMaxClockInfo", self._nvml.NVML_CLOCK_SM) or 0),
            numa=_numa(sysfs, address),
            clique=clique,
            pci_address=address,
            healthy=not fault,
            fault=fault,
            clock_ladder_mhz=ladder,
            slices=self.slices(),
        )

    def fault(self) -> str:
        """Why the board cannot be relied on, empty when it can."""
        rows = self.ask("GetRemappedRows")
        if self.lost:
            return "The GPU has fallen off the bus; reset or replace it."
        if rows is not None and rows[3]:
            return "A memory row could not be remapped; replace the GPU."
        return ""

    def slices(self) -> tuple[str, ...]:
        """UUIDs of its MIG slices as they are now; none where it is whole."""
        mode = self.ask("GetMigMode")
        if mode is None or not mode[0]:
            return ()
        most = self.ask("GetMaxMigDeviceCount") or 0
        handles = (self.ask("GetMigDeviceHandleByIndex", index) for index in range(most))
        found = (self._uuid_of(handle) for handle in handles if handle is not None)
        return tuple(uuid for uuid in found if uuid)

    def joined(self, other: Board) -> bool:
        """Whether the two reach each other over NVLink."""
        try:
            status = self._nvml.nvmlDeviceGetP2PStatus(
                self._nvml.nvmlDeviceGetHandleByUUID(self.uuid),
                self._nvml.nvmlDeviceGetHandleByUUID(other.uuid),
                self._nvml.NVML_P2P_CAPS_INDEX_NVLINK,
            )
        except self._nvml.NVMLError:
            return False
        return bool(status == self._nvml.NVML_P2P_STATUS_OK)

    def _ladder(self) -> tuple[int, ...]:
        """Settable clocks at the highest memory clock, ascending, at most `LADDER_ENTRIES` of them."""
        memory = self.ask("GetSupportedMemoryClocks")
        clocks = sorted(self.ask("GetSupportedGraphicsClocks", max(memory)) or ()) if memory else []
        if len(clocks) <= LADDER_ENTRIES:
            return tuple(clocks)
        step = (len(clocks) - 1) / (LADDER_ENTRIES - 1)
        return tuple(clocks[round(place * step)] for place in range(LADDER_ENTRIES))

    def _uuid_of(self, handle: object) -> str:
        try:
            return _text(self._nvml.nvmlDeviceGetUUID(handle))
        except self._nvml.NVMLError:
            return ""

    def _sentence(self, name: str, error: Any) -> str:
        if error.value == NO_PERMISSION:
            return f"{name} on {self.uuid} is not permitted: the agent needs CAP_SYS_ADMIN to set power and clocks."
        if error.value == GPU_IS_LOST:
            self.lost = True
        return f"{name} on {self.uuid} failed: {error}."


def boards(nvml: Any) -> list[Board]:
    """Every GPU there is, by index. Raises: DriverError when NVML cannot list them."""
    try:
        count = nvml.nvmlDeviceGetCount()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return [Board(nvml, _text(nvml.nvmlDeviceGetUUID(handle))) for handle in handles]
    except nvml.NVMLError as error:
        raise DriverError(f"NVML cannot list the GPUs: {error}. Is the NVIDIA driver loaded?") from error


def cliques(found: list[Board]) -> list[int]:
    """Numbers boards by NVLink island, in order of their first member; a board alone has its own number."""
    numbers: list[int] = []
    for place, board in enumerate(found):
        mate = next((other for other in range(place) if board.joined(found[other])), None)
        numbers.append(max(numbers, default=-1) + 1 if mate is None else numbers[mate])
    return numbers


def guarded(nvml: Any, call: Callable[[], T], doing: str) -> T:
    """Runs a call of NVML's library itself. Raises: DriverError naming what was being done."""
    try:
        return call()
    except nvml.NVMLError as error:
        raise DriverError(f"{doing} failed: {error}. Is the NVIDIA driver loaded?") from error


def _pci_address(info: Any) -> str:
    """NVML's bus id "00000000:1A:00.0" as sysfs writes it, "0000:1a:00.0"."""
    if info is None:
        return ""
    domain, _, rest = _text(info.busId).partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}"


def _numa(sysfs: Path, address: str) -> int:
    try:
        return int((sysfs / "bus/pci/devices" / address / "numa_node").read_text())
    except (OSError, ValueError):
        return -1


def _text(value: Any) -> str:
    """NVML's bindings gave bytes once and give text now."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
