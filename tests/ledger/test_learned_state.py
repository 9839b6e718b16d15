"""What running engines taught, through the memory of an operator and both databases, at its largest and thinned out in time."""

from __future__ import annotations

import msgspec
import numpy as np

from cluster.observer import Observer
from controller.beliefs import CapacityBeliefs
from controller.config import OperatorConfig, ProfileSettings
from controller.learned import MOST_EFFECTS, Learned, learned_of
from controller.ledger import Ledger
from controller.loops.planner import PlannerLoop
from controller.loops.power import PowerLoop
from controller.memory import LEARNED_BYTES_PER_SECOND, Remembered
from placement.profiles.calibration import Calibration
from placement.profiles.shipped import shipped_constants


def learning() -> CapacityBeliefs:
    return CapacityBeliefs(settings=ProfileSettings(measured=True))


def full(samples: int) -> Learned:
    names = tuple(f"layer@run=model-{n}|vllm|bf16|H100" for n in range(MOST_EFFECTS))
    calibration = Calibration(
        constants=shipped_constants(""), names=names, mean=(0.1,) * MOST_EFFECTS,
        covariance=tuple((np.eye(MOST_EFFECTS) / 3.0).ravel().tolist()), samples=samples,
    )  # fmt: skip
    return learned_of(calibration, {"model-1|vllm|bf16|H100|1x1": samples}, silicon=True)


class Leader:
    """What of an operator its memory needs."""

    def __init__(self, ledger: Ledger, epoch: int) -> None:
        self.ledger, self.epoch = ledger, epoch
        self.memory, self.beliefs, self.observer = Remembered(ledger), learning(), Observer()
        self.planner, self.power = PlannerLoop(OperatorConfig()), PowerLoop(1)

    def restore(self, now: float) -> None:
        self.memory.highest_epoch()
        self.memory.restore(self.planner, self.power, self.beliefs, self.observer, now)

    def store(self, now: float) -> None:
        snapshot = self.observer.snapshot(now, self.epoch)
        self.memory.store(self.planner, self.power, self.beliefs, snapshot, (), self.epoch, now)
        self.ledger.flush()


def test_the_largest_state_goes_whole_to_the_next_leader(open_ledger) -> None:
    first = Leader(open_ledger(), 1)
    first.beliefs.recall(full(samples=41))
    first.store(100.0)
    assert first.ledger.state().lost_rows == {}
    second = Leader(open_ledger(), 2)
    second.restore(101.0)
    learned = second.beliefs.learned()
    assert learned is not None
    before = full(samples=41)
    assert np.array_equal(learned.triangle, before.triangle)
    assert msgspec.structs.replace(learned, triangle=before.triangle) == before


def test_a_large_state_is_written_now_and_then(open_ledger) -> None:
    leader = Leader(open_ledger(), 1)

    def kept() -> int:
        row = leader.ledger.reader.policy_state("profiles", "capacity")
        return msgspec.json.decode(row.state)["samples"]

    leader.beliefs.recall(full(samples=1))
    leader.store(100.0)
    size = len(leader.ledger.reader.policy_state("profiles", "capacity").state)
    pause = size / LEARNED_BYTES_PER_SECOND
    leader.beliefs.recall(full(samples=2))
    leader.store(100.0 + 0.9 * pause)
    assert kept() == 1
    leader.store(100.0 + 1.1 * pause)
    assert kept() == 2
