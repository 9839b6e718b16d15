"""NVML answering from a record: each call's answer per board, errors included, and limits that can be set.

The records are composed call by call from what the products publish and `nvidia-smi -q` prints for them (names,
power ranges in milliwatts, clock steps of 15 MHz, bus ids, error codes where a board does not answer); they were
not captured on a machine of ours. `test_a_real_gpu_read_only` is for that.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

NOT_SUPPORTED = {"error": 3}
NO_PERMISSION = {"error": 4}
GPU_IS_LOST = {"error": 15}

H100: dict[str, Any] = {
    "GetName": "NVIDIA H100 80GB HBM3",
    "GetMemoryInfo": {"total": 85_520_809_984, "used": 1_234_567_168, "free": 84_286_242_816},
    "GetPowerManagementLimitConstraints": [200_000, 700_000],
    "GetPowerManagementDefaultLimit": 700_000,
    "GetPowerManagementLimit": 700_000,
    "GetPowerUsage": 118_734,
    "GetTotalEnergyConsumption": 9_182_734_551,
    "GetMaxClockInfo": 1980,
    "GetClockInfo": 345,
    "GetSupportedMemoryClocks": [2619, 1593],
    "GetSupportedGraphicsClocks": list(range(1980, 209, -15)),
    "GetUtilizationRates": {"gpu": 37, "memory": 12},
    "GetTemperature": 34,
    "GetCurrentClocksThrottleReasons": 1,
    "GetRemappedRows": [0, 0, 0, 0],
    "GetPersistenceMode": 0,
    "GetMigMode": [0, 0],
    "GetPciInfo": {"busId": "00000000:19:00.0"},
    "SetPowerManagementLimit": None,
    "SetGpuLockedClocks": None,
    "ResetGpuLockedClocks": None,
    "SetPersistenceMode": None,
}

L4: dict[str, Any] = H100 | {
    "GetName": b"NVIDIA L4",
    "GetMemoryInfo": {"total": 24_152_899_584, "used": 512_000_000, "free": 23_640_899_584},
    "GetPowerManagementLimitConstraints": [40_000, 72_000],
    "GetPowerManagementDefaultLimit": 72_000,
    "GetPowerManagementLimit": 72_000,
    "GetPowerUsage": 16_512,
    "GetMaxClockInfo": 2040,
    "GetSupportedMemoryClocks": NOT_SUPPORTED,
    "GetSupportedGraphicsClocks": NOT_SUPPORTED,
    "GetRemappedRows": NOT_SUPPORTED,
    "GetMigMode": NOT_SUPPORTED,
    "GetTotalEnergyConsumption": NOT_SUPPORTED,
    "GetPciInfo": {"busId": b"00000000:00:1E.0"},
}


@dataclass
class Recorded:
    """Looks like the module `pynvml`. `refuse` maps a setter to an error; `deaf` boards take a limit and keep theirs."""

    boards: dict[str, dict[str, Any]]
    linked: frozenset[frozenset[str]] = frozenset()
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)
    driver: Any = "550.90.07"

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU
    NVML_P2P_CAPS_INDEX_NVLINK = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    NVML_P2P_STATUS_OK = pynvml.NVML_P2P_STATUS_OK

    @classmethod
    def of(cls, *records: dict[str, Any], **settings: Any) -> Recorded:
        """Boards GPU-0, GPU-1, … with these records."""
        return cls(
            {f"GPU-{place}": copy.deepcopy(record) for place, record in enumerate(records)}, **settings
        )

    def answer(self, value: Any) -> Any:
        if isinstance(value, dict) and "error" in value:
            raise pynvml.NVMLError(value["error"])
        return SimpleNamespace(**value) if isinstance(value, dict) else value

    def nvmlInit(self) -> None:  # noqa: N802
        self.answer(self.driver)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return str(self.answer(self.driver))

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return list(self.boards)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if self.boards[uuid].get("lost"):
            raise pynvml.NVMLError(15)
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return str(self.boards.get(handle, {}).get("uuid", handle))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        found = self.boards[handle]["slices"].get(index)
        if found is None:
            raise pynvml.NVMLError(6)  # NOT_FOUND
        return str(found)

    def nvmlDeviceGetP2PStatus(self, one: str, other: str, index: int) -> int:  # noqa: N802
        if not self.linked:
            raise pynvml.NVMLError(3)
        linked = frozenset((one, other)) in self.linked
        return int(pynvml.NVML_P2P_STATUS_OK if linked else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    def __getattr__(self, name: str) -> Any:
        question = name.removeprefix("nvmlDevice")

        def call(handle: str, *arguments: Any) -> Any:
            answer = self.answer(self.boards[handle][question])
            if question.startswith(("Set", "Reset")):
                self.journal.append((question, handle, *arguments))
                if question == "SetPowerManagementLimit" and handle not in self.deaf:
                    self.boards[handle]["GetPowerManagementLimit"] = arguments[0]
            return answer

        return call
