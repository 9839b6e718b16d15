"""Driver of real NVIDIA GPUs, over NVML (nvidia-ml-py).

Reads without privilege. Sets power only where it was told to manage it: a GPU that was not opted in is counted at
its highest limit and never touched. What it sets, it clamps to the product's range, reads back and compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.node.drivers.base import (
    Code,
    Device,
    DriverCommand,
    DriverError,
    GpuReadings,
    Inventory,
    Outcome,
    Sample,
    SetPower,
    unsupported,
)
from agent.node.drivers.nvml_read import Board, boards, cliques, guarded
from agent.node.drivers.sensors import PowerSensor
from agent.node.nics import SYSFS, Nic, read_nics

PROC = Path("/proc")


class NvmlConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator of a node decides about it.

    `manage_power` opts its GPUs in. `base_watts` is the node's draw without GPUs, by measurement or label.
    `safe_watts_per_gpu` is the cap without a lease, at least the product's least limit, which is the default.
    """

    manage_power: bool = False
    base_watts: int = 0
    safe_watts_per_gpu: int = 0
    dram_cache_bytes: int = 0
    nvme_cache_bytes: int = 0
    sysfs: str = str(SYSFS)
    proc: str = str(PROC)


class NvmlDriver:
    """`Driver` over NVML. `nvml` is the module `pynvml`, or something that answers like it."""

    name = "nvml"

    def __init__(
        self, nvml: Any, config: NvmlConfig, nics: Callable[[Path], tuple[Nic, ...]] = read_nics
    ) -> None:
        """Starts NVML and finds the boards. Raises: DriverError when there is no working NVIDIA driver."""
        self._nvml = nvml
        self._config = config
        self._nics = nics
        guarded(nvml, nvml.nvmlInit, "Starting NVML")
        self._version = str(guarded(nvml, nvml.nvmlSystemGetDriverVersion, "Asking for the driver's version"))
        self._boards = boards(nvml)
        numbers = cliques(self._boards)
        sysfs = Path(config.sysfs)
        self._devices = [
            board.described(index, number, sysfs)
            for index, (board, number) in enumerate(zip(self._boards, numbers, strict=True))
        ]
        self._sensors = [PowerSensor(device.max_watts) for device in self._devices]
        self._persisted = False

    @classmethod
    def load(cls, config: NvmlConfig) -> NvmlDriver:
        """The driver over the installed `pynvml`. Raises: DriverError with what to install."""
        try:
            import pynvml
        except ImportError as error:
            raise DriverError(
                "The nvml driver needs the package nvidia-ml-py: install plimsoll[agent]."
            ) from error
        return cls(pynvml, config)

    # ------------------------------------------------------------------------------------------------- reading

    def inventory(self) -> Inventory:
        """Devices with their health as it is now; what cannot change was read once."""
        self._devices = [
            msgspec.structs.replace(device, healthy=not fault, fault=fault, slices=slices)
            for device, fault, slices in (
                (device, board.fault(), board.slices()) for device, board in self._pairs()
            )
        ]
        return Inventory(
            devices=tuple(self._devices),
            nics=self._nics(Path(self._config.sysfs)),
            cpu_millis=1000 * (os.cpu_count() or 0),
            memory_bytes=_memory_bytes(Path(self._config.proc)),
            dram_cache_bytes=self._config.dram_cache_bytes,
            nvme_cache_bytes=self._config.nvme_cache_bytes,
            base_watts=self._config.base_watts,
            safe_watts=self._config.base_watts + sum(self._safe_watts(device) for device in self._devices),
            driver_version=self._version,
        )

    def sample(self, now_seconds: float) -> Sample:
        """All columns. A board without a believable power reading counts in `node_watts` with its limit."""
        gpus = GpuReadings(
            watts=tuple(
                sensor.read(
                    now_seconds, board.watts("GetPowerUsage"), _whole(board.ask("GetTotalEnergyConsumption"))
                )
                for board, sensor in zip(self._boards, self._sensors, strict=True)
            ),
            cap_watts=self._column(self._cap_watts),
            clock_mhz=self._column(lambda board: _whole(board.ask("GetClockInfo", self._nvml.NVML_CLOCK_SM))),
            utilisation=self._column(_utilisation),
            memory_used_bytes=self._column(_memory_used),
            temperature_celsius=self._column(self._temperature),
            energy_millijoules=self._column(lambda board: _whole(board.ask("GetTotalEnergyConsumption"))),
            throttle_bits=self._column(lambda board: _whole(board.ask("GetCurrentClocksThrottleReasons"))),
        )
        counted = [
            watts if watts is not None else float(cap if cap is not None else device.max_watts)
            for watts, cap, device in zip(gpus.watts, gpus.cap_watts, self._devices, strict=True)
        ]
        return Sample(node_watts=self._config.base_watts + sum(counted), gpus=gpus)

    def advance(self, now_seconds: float) -> None:
        """Time passes by itself here."""

    # ------------------------------------------------------------------------------------------------- setting

    def apply(self, command: DriverCommand, now_seconds: float) -> Outcome:
        """Sets power limits and clock ceilings; every other kind is UNSUPPORTED."""
        del now_seconds
        if not isinstance(command, SetPower):
            return unsupported(self.name, command)
        if not self._config.manage_power:
            return Outcome(
                code=Code.UNSUPPORTED,
                message="The power of this node's GPUs is not managed: nobody opted them in (manage_power).",
            )
        return self._set_power(command)

    def _set_power(self, command: SetPower) -> Outcome:
        wanted = share(command.watts - self._config.base_watts, self._devices)
        if wanted is None:
            least = self._config.base_watts + sum(device.min_watts for device in self._devices)
            return Outcome(
                code=Code.OUT_OF_RANGE,
                message=f"{command.watts} W is less than the {least} W that this node can be capped to.",
            )
        try:
            self._persist()
            # Lower before raising, so that the node's sum never passes through more than the larger of old and new.
            for place in sorted(range(len(wanted)), key=lambda each: wanted[each] - self._limit(each)):
                self._cap(place, wanted[place], command.clock_mhz)
        except DriverError as error:
            return Outcome(code=Code.FAILED, message=str(error), readback_watts=self._readback())
        return Outcome(code=Code.DONE, readback_watts=self._readback())

    def _cap(self, place: int, watts: int, clock_mhz: int) -> None:
        board, device = self._boards[place], self._devices[place]
        board.order("SetPowerManagementLimit", watts * 1000)
        held = self._cap_watts(board)
        if held != watts:
            raise DriverError(
                f"{board.uuid} holds {held} W though {watts} W were set; it counts at its maximum."
            )
        if clock_mhz:
            ceiling = max((step for step in device.clock_ladder_mhz if step <= clock_mhz), default=clock_mhz)
            floor = min(device.clock_ladder_mhz, default=0)
            board.order("SetGpuLockedClocks", min(floor, ceiling), ceiling)
        elif board.ask("ResetGpuLockedClocks") is None and board.lost:
            raise DriverError(f"{board.uuid} has fallen off the bus; its clock cannot be freed.")

    def _persist(self) -> None:
        """Limits are lost when the driver unloads with its last client: persistence mode keeps it."""
        if self._persisted:
            return
        for board in self._boards:
            if board.ask("GetPersistenceMode") == 0:
                board.order("SetPersistenceMode", 1)
        self._persisted = True

    # -------------------------------------------------------------------------------------------------- inside

    def _pairs(self) -> list[tuple[Device, Board]]:
        return list(zip(self._devices, self._boards, strict=True))

    def _column(self, read: Callable[[Board], Any]) -> tuple[Any, ...]:
        return tuple(read(board) for board in self._boards)

    def _safe_watts(self, device: Device) -> int:
        if not self._config.manage_power:
            return device.max_watts
        return min(device.max_watts, max(device.min_watts, self._config.safe_watts_per_gpu))

    def _cap_watts(self, board: Board) -> int | None:
        limit = board.watts("GetPowerManagementLimit")
        return None if limit is None else round(limit)

    def _limit(self, place: int) -> int:
        limit = self._cap_watts(self._boards[place])
        return self._devices[place].max_watts if limit is None else limit

    def _readback(self) -> int:
        """Node watts by the limits as read; a board that does not answer counts at its maximum."""
        return self._config.base_watts + sum(self._limit(place) for place in range(len(self._boards)))

    def _temperature(self, board: Board) -> float | None:
        degrees = board.ask("GetTemperature", self._nvml.NVML_TEMPERATURE_GPU)
        return None if degrees is None else float(degrees)


def share(budget_watts: int, devices: list[Device]) -> list[int] | None:
    """Whole watts per device within a budget: each its least limit, and the same fraction of the rest of its range.

    Never more than the budget in sum, nor than a device's highest limit; None when the least limits do not fit.
    """
    least = sum(device.min_watts for device in devices)
    room = sum(device.max_watts - device.min_watts for device in devices)
    if budget_watts < least:
        return None
    spare = min(budget_watts - least, room)
    return [
        device.min_watts + (spare * (device.max_watts - device.min_watts) // room if room else 0)
        for device in devices
    ]


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _utilisation(board: Board) -> float | None:
    rates = board.ask("GetUtilizationRates")
    return None if rates is None else rates.gpu / 100.0


def _memory_used(board: Board) -> int | None:
    memory = board.ask("GetMemoryInfo")
    return None if memory is None else int(memory.used)


def _memory_bytes(proc: Path) -> int:
    """The node's memory from /proc/meminfo; 0 where it cannot be read."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
