"""The nvml driver against recorded answers of boards, good and bad; and read-only on a real GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.node.drivers.base import Code, Device, DriverError, SetPower, SetTier
from agent.node.drivers.nvml import NvmlConfig, NvmlDriver, share
from agent.node.drivers.sensors import PowerSensor
from tests.agent.recorded import GPU_IS_LOST, H100, L4, NO_PERMISSION, NOT_SUPPORTED, Recorded

NOW = 1_700_000_000.0


def driver_of(nvml: Recorded, **config: Any) -> NvmlDriver:
    return NvmlDriver(nvml, NvmlConfig(base_watts=500, **config), lambda root: ())


def test_inventory_of_an_eight_gpu_server(tmp_path: Path) -> None:
    (tmp_path / "bus/pci/devices/0000:19:00.0").mkdir(parents=True)
    (tmp_path / "bus/pci/devices/0000:19:00.0/numa_node").write_text("1\n")
    (tmp_path / "meminfo").write_text("MemTotal:       2113513308 kB\nMemFree: 1 kB\n")
    inventory = driver_of(Recorded.of(*[H100] * 8), sysfs=str(tmp_path), proc=str(tmp_path)).inventory()
    assert len(inventory.devices) == 8
    board = inventory.devices[3]
    assert (board.uuid, board.index, board.product) == ("GPU-3", 3, "NVIDIA H100 80GB HBM3")
    assert (board.min_watts, board.max_watts, board.default_watts) == (200, 700, 700)
    assert (board.memory_bytes, board.max_clock_mhz) == (85_520_809_984, 1980)
    assert (board.pci_address, board.numa) == ("0000:19:00.0", 1)
    assert board.healthy
    assert (min(board.clock_ladder_mhz), max(board.clock_ladder_mhz)) == (210, 1980)
    assert len(board.clock_ladder_mhz) == 32
    assert inventory.memory_bytes == 2_113_513_308 * 1024
    assert inventory.driver_version == "550.90.07"
    assert inventory.safe_watts == 500 + 8 * 700, "GPUs that nobody opted in count at their highest limit"
    assert inventory.min_watts == 500 + 8 * 200


def test_a_board_that_answers_little_still_counts(tmp_path: Path) -> None:
    driver = driver_of(Recorded.of(L4), sysfs=str(tmp_path), proc=str(tmp_path))
    [board] = driver.inventory().devices
    assert (board.product, board.pci_address, board.numa) == ("NVIDIA L4", "0000:00:1e.0", -1)
    assert board.clock_ladder_mhz == ()
    sample = driver.sample(NOW)
    assert sample.gpus.watts == (16.512,)
    assert sample.gpus.energy_millijoules == (None,)
    assert sample.node_watts == pytest.approx(516.512)
    assert driver.inventory().memory_bytes == 0


def test_a_board_in_slices_names_them_as_they_are_now() -> None:
    nvml = Recorded.of(
        H100 | {"GetMigMode": [1, 1], "GetMaxMigDeviceCount": 7, "slices": {0: "MIG-a", 4: "MIG-b"}}, H100
    )
    driver = driver_of(nvml)
    assert [board.slices for board in driver.inventory().devices] == [("MIG-a", "MIG-b"), ()]
    nvml.boards["GPU-0"]["slices"] = {1: "MIG-c"}
    assert driver.inventory().devices[0].slices == ("MIG-c",)


def test_readings_are_in_their_units() -> None:
    sample = driver_of(Recorded.of(H100)).sample(NOW)
    assert sample.gpus.watts == (118.734,)
    assert sample.gpus.cap_watts == (700,)
    assert sample.gpus.clock_mhz == (345,)
    assert sample.gpus.utilisation == (0.37,)
    assert sample.gpus.memory_used_bytes == (1_234_567_168,)
    assert sample.gpus.temperature_celsius == (34.0,)
    assert sample.gpus.throttle_bits == (1,)


@pytest.mark.parametrize(
    ("linked", "cliques"),
    [
        pytest.param([], [0, 1, 2, 3], id="no nvlink: each alone"),
        pytest.param([(0, 1), (2, 3)], [0, 0, 1, 1], id="two bridged pairs"),
        pytest.param([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], [0, 0, 0, 0], id="a switch joins all"),
        pytest.param([(1, 3)], [0, 1, 2, 1], id="a pair across the numbering"),
    ],
)
def test_cliques_follow_nvlink(linked: list[tuple[int, int]], cliques: list[int]) -> None:
    pairs = frozenset(frozenset((f"GPU-{a}", f"GPU-{b}")) for a, b in linked)
    inventory = driver_of(Recorded.of(*[H100] * 4, linked=pairs)).inventory()
    assert [device.clique for device in inventory.devices] == cliques


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        pytest.param({"GetRemappedRows": [3, 1, 0, 1]}, "could not be remapped", id="row remapping failed"),
        pytest.param({"GetRemappedRows": [3, 1, 1, 0]}, "", id="a pending remap is no fault"),
        pytest.param({"lost": True}, "fallen off the bus", id="lost"),
    ],
)
def test_health(changed: dict[str, Any], fault: str) -> None:
    nvml = Recorded.of(H100, H100)
    driver = driver_of(nvml)
    nvml.boards["GPU-1"] |= changed
    good, bad = driver.inventory().devices
    assert good.healthy
    assert bad.healthy == (not fault)
    assert fault in bad.fault


def test_a_lost_board_reads_as_nothing_and_counts_at_its_most() -> None:
    nvml = Recorded.of(H100, H100)
    driver = driver_of(nvml)
    nvml.boards["GPU-0"]["lost"] = True
    sample = driver.sample(NOW)
    assert sample.gpus.watts == (None, 118.734)
    assert sample.gpus.cap_watts == (None, 700)
    assert sample.node_watts == pytest.approx(500 + 700 + 118.734)


def test_power_is_not_touched_unless_opted_in() -> None:
    nvml = Recorded.of(H100)
    outcome = driver_of(nvml).apply(SetPower(watts=900), NOW)
    assert outcome.code is Code.UNSUPPORTED
    assert "nobody opted them in" in outcome.message
    assert nvml.journal == []


def test_power_is_set_with_a_clock_ceiling_and_read_back() -> None:
    nvml = Recorded.of(H100, H100)
    outcome = driver_of(nvml, manage_power=True).apply(SetPower(watts=500 + 900, clock_mhz=1_200), NOW)
    assert outcome.code is Code.DONE
    assert outcome.readback_watts == 1_400
    assert nvml.journal == [
        ("SetPersistenceMode", "GPU-0", 1),
        ("SetPersistenceMode", "GPU-1", 1),
        ("SetPowerManagementLimit", "GPU-0", 450_000),
        ("SetGpuLockedClocks", "GPU-0", 210, 1185),
        ("SetPowerManagementLimit", "GPU-1", 450_000),
        ("SetGpuLockedClocks", "GPU-1", 210, 1185),
    ]


def test_lower_before_raise_and_clocks_freed() -> None:
    nvml = Recorded.of(H100 | {"GetPowerManagementLimit": 250_000}, H100)
    driver_of(nvml, manage_power=True).apply(SetPower(watts=500 + 900), NOW)
    assert [entry[:2] for entry in nvml.journal if entry[0] != "SetPersistenceMode"] == [
        ("SetPowerManagementLimit", "GPU-1"),
        ("ResetGpuLockedClocks", "GPU-1"),
        ("SetPowerManagementLimit", "GPU-0"),
        ("ResetGpuLockedClocks", "GPU-0"),
    ]


@pytest.mark.parametrize(
    ("spoil", "sentence", "readback"),
    [
        pytest.param({"SetPowerManagementLimit": NO_PERMISSION}, "needs CAP_SYS_ADMIN", 1_200, id="no right"),
        pytest.param(
            {"SetPowerManagementLimit": GPU_IS_LOST}, "failed: GPU is lost", 1_200, id="lost while set"
        ),
        pytest.param(
            {"SetGpuLockedClocks": NOT_SUPPORTED}, "SetGpuLockedClocks on GPU-0 failed", 900, id="no clocks"
        ),
        pytest.param({"uuid": "GPU-9"}, "is another board's after", 1_200, id="handle of another board"),
        pytest.param({"deaf": True}, "holds 700 W though 400 W were set", 1_200, id="limit not taken"),
    ],
)
def test_what_does_not_hold_is_said(spoil: dict[str, Any], sentence: str, readback: int) -> None:
    nvml = Recorded.of(H100)
    driver = driver_of(nvml, manage_power=True)
    nvml.boards["GPU-0"] |= spoil
    if "deaf" in spoil:
        nvml.deaf.add("GPU-0")
    outcome = driver.apply(SetPower(watts=900, clock_mhz=1_500), NOW)
    assert outcome.code is Code.FAILED
    assert sentence in outcome.message
    assert outcome.readback_watts == readback


def test_below_the_least_limits_is_out_of_range() -> None:
    nvml = Recorded.of(H100, H100)
    outcome = driver_of(nvml, manage_power=True).apply(SetPower(watts=500 + 399), NOW)
    assert outcome.code is Code.OUT_OF_RANGE
    assert "less than the 900 W" in outcome.message
    assert nvml.journal == []


@pytest.mark.parametrize(
    ("asked", "safe"),
    [
        pytest.param(0, 200, id="least limit"),
        pytest.param(350, 350, id="as asked"),
        pytest.param(999, 700, id="most"),
    ],
)
def test_safe_watts_stay_in_the_products_range(asked: int, safe: int) -> None:
    driver = driver_of(Recorded.of(H100), manage_power=True, safe_watts_per_gpu=asked)
    assert driver.inventory().safe_watts == 500 + safe


def test_other_kinds_are_unsupported() -> None:
    outcome = driver_of(Recorded.of(H100)).apply(SetTier(replica="a/b", uid="u", tier="awake"), NOW)
    assert outcome.code is Code.UNSUPPORTED
    assert outcome.message == "The nvml driver of this node does not carry out SetTier."


@pytest.mark.parametrize(
    ("nvml", "sentence"),
    [
        pytest.param(Recorded.of(driver={"error": 9}), "Starting NVML failed", id="no driver loaded"),
        pytest.param(
            Recorded.of(H100 | {"GetPowerManagementLimitConstraints": NOT_SUPPORTED}),
            "does not tell its power limits",
            id="no power range",
        ),
    ],
)
def test_a_node_that_cannot_be_managed_says_why(nvml: Recorded, sentence: str) -> None:
    with pytest.raises(DriverError, match=sentence):
        driver_of(nvml)


@given(
    ranges=st.lists(st.tuples(st.integers(20, 400), st.integers(0, 900)), min_size=1, max_size=16),
    budget=st.integers(0, 20_000),
)
def test_shares_fit_the_budget_and_every_range(ranges: list[tuple[int, int]], budget: int) -> None:
    devices = [
        Device(
            uuid=str(place), index=place, product="p", memory_bytes=1,
            min_watts=least, max_watts=least + span, default_watts=least,
        )
        for place, (least, span) in enumerate(ranges)
    ]  # fmt: skip
    shares = share(budget, devices)
    if shares is None:
        assert budget < sum(device.min_watts for device in devices)
        return
    assert sum(shares) <= budget
    assert all(
        device.min_watts <= watts <= device.max_watts for device, watts in zip(devices, shares, strict=True)
    )
    assert sum(shares) > min(budget, sum(device.max_watts for device in devices)) - len(devices)


@pytest.mark.parametrize(
    ("samples", "believed"),
    [
        pytest.param(
            [(0, 300.0, None), (1, 310.0, None)], [300.0, 310.0], id="no energy counter: the reading"
        ),
        pytest.param([(0, 300.0, 0), (1, 999.0, 420_000)], [300.0, 420.0], id="the mean by energy is better"),
        pytest.param([(0, 300.0, 0), (0.1, 310.0, 99_000)], [300.0, 310.0], id="too soon for the counter"),
        pytest.param(
            [(0, 300.0, 5), (1, 300.0, 5), (2, 300.0, 5)], [300.0, 300.0, None], id="stuck at the third"
        ),
        pytest.param(
            [(0, 300.0, 5), (1, 300.0, 5), (2, 300.0, 5), (3, 301.0, 305_005)],
            [300.0, 300.0, None, 305.0],
            id="believed again when it moves",
        ),
        pytest.param(
            [(0, 60.0, None), (1, 60.0, None), (2, 60.0, None)], [60.0] * 3, id="steady is not stuck"
        ),
        pytest.param([(0, 5_000.0, None), (1, -3.0, None)], [None, None], id="impossible"),
        pytest.param([(0, 300.0, 900_000), (1, 280.0, 100)], [300.0, 280.0], id="counter began again"),
    ],
)
def test_what_is_believed_of_a_sensor(
    samples: list[tuple[float, float, int | None]], believed: list[float | None]
) -> None:
    sensor = PowerSensor(700)
    assert [sensor.read(NOW + at, watts, energy) for at, watts, energy in samples] == believed


def real_gpu() -> str | None:
    """Why there is no real GPU to read; None where there is one."""
    try:
        pynvml.nvmlInit()
        return None if pynvml.nvmlDeviceGetCount() else "NVML finds no GPU on this machine"
    except pynvml.NVMLError as error:
        return f"no NVIDIA GPU can be read on this machine (NVML: {error})"


@pytest.mark.gpu
def test_a_real_gpu_read_only() -> None:
    """Reads everything, sets nothing: power is not opted in."""
    missing = real_gpu()
    if missing:
        pytest.skip(missing)
    driver = NvmlDriver.load(NvmlConfig())
    inventory = driver.inventory()
    first = driver.sample(NOW)
    assert inventory.devices
    for device, watts, cap in zip(inventory.devices, first.gpus.watts, first.gpus.cap_watts, strict=True):
        assert device.uuid.startswith("GPU-")
        assert device.memory_bytes > 1 << 30
        assert 0 < device.min_watts <= device.max_watts < 3_000
        assert cap is not None
        assert device.min_watts <= cap <= device.max_watts
        assert watts is not None
        assert 0 < watts <= 2 * device.max_watts
    assert driver.apply(SetPower(watts=10_000), NOW).code is Code.UNSUPPORTED
