"""Packing rules: closed-form tiny cases for each, and the fragmentation measure on cases counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from placement.packing.duals import Stock, best_fill, stocks_of, worths_of
from placement.packing.fleet import Fleet, Machine, PackingError, Placed, Request, Shape, shape_of
from placement.packing.fragmentation import Fragmentation, Typical, typical
from placement.packing.packer import Packer
from placement.packing.registry import RULES, Setting, rule_of
from placement.packing.rules.clustering import Clustering
from placement.packing.rules.priced_fgd import PricedFgd, PricedFgdConfig
from placement.packing.trials import trials_of
from placement.packing.worth import Worth

GIB = 1 << 30


def machine(
    name: str, free: tuple[int, ...], *, cpu: int = 64_000, kind: str = "A", order: int = 0
) -> Machine:
    return Machine(
        name=name, kind=kind, cpu_millis=cpu, memory_bytes=256 * GIB, free_millis=free, order=order
    )


def pod(
    gpus: int = 1, milli: int = 1_000, cpu: int = 4_000, kinds: tuple[str, ...] = (), memory: int = GIB
) -> Request:
    return Request(cpu, memory, gpus, milli, kinds)


def setting(machines: list[Machine], workload: list[Request], seed: int = 1) -> Setting:
    counted = [Typical(shape, number) for shape, number in _counts(workload)]
    generator = np.random.Generator(np.random.PCG64(seed))
    return Setting(typical(workload), counted, Fleet(machines).kinds, stocks_of(machines), generator)


def _counts(workload: list[Request]) -> list[tuple[Shape, int]]:
    shapes = [shape_of(each) for each in workload]
    return [(shape, shapes.count(shape)) for shape in sorted(set(shapes))]


# --------------------------------------------------------------------------------------------- fragmentation

HALF, BIG, PAIR, NONE = pod(milli=500), pod(milli=800), pod(gpus=2), pod(gpus=0, milli=0, cpu=8_000)


@pytest.mark.parametrize(
    ("free", "cpu", "typical_pods", "expected"),
    [
        pytest.param((300, 1_000), 64_000, [HALF], 300, id="only the device with too little for it is lost"),
        pytest.param((300, 400), 64_000, [HALF], 700, id="no device holds it: everything is lost"),
        pytest.param((1_000, 400), 64_000, [PAIR], 1_400, id="one of two whole GPUs is there: everything is lost"),
        pytest.param((1_000, 1_000, 400), 64_000, [PAIR], 400, id="both are there: the third device is lost"),
        pytest.param((1_000, 1_000), 3_000, [HALF], 2_000, id="no CPU left: everything is lost"),
        pytest.param((700, 600), 64_000, [NONE], 1_300, id="a pod without GPU can use none of it"),
        pytest.param((600, 900), 64_000, [HALF, BIG], 300, id="the mean over pods: 0 for one, 600 for the other"),
        pytest.param((600, 900), 64_000, [HALF, HALF, HALF, BIG], 150, id="weighed by how frequent each is"),
    ],
)  # fmt: skip
def test_fragmentation_is_the_papers(free, cpu, typical_pods, expected):
    fleet = Fleet([machine("n", free, cpu=cpu)])
    measure = Fragmentation(typical(typical_pods, 1.0), fleet.kinds)
    assert measure.of(fleet, np.array([0]))[0] / measure.total == expected


def test_a_product_that_a_pod_does_not_accept_is_lost_to_it():
    fleet = Fleet([machine("a", (1_000,), kind="A"), machine("b", (1_000,), kind="B", order=1)])
    measure = Fragmentation(typical([pod(kinds=("B",))]), fleet.kinds)
    assert (measure.of(fleet, np.arange(2)) / measure.total).tolist() == [1_000, 0]


def test_typical_pods_are_the_most_frequent_until_95_percent():
    workload = [HALF] * 60 + [PAIR] * 35 + [BIG] * 4 + [NONE]
    assert [(each.shape.milli, each.number) for each in typical(workload)] == [(500, 60), (1_000, 35)]
    assert len(typical(workload, 1.0)) == 4


# ---------------------------------------------------------------------------------------------------- rules


def _scores(
    name: str, machines: list[Machine], request: Request, workload: list[Request] | None = None
) -> list[float]:
    packer = Packer(Fleet(machines), rule_of(name, setting(machines, workload or [request])))
    return [float(score) for score in packer.scores(request)[0]]


def test_best_fit_prefers_what_is_left_with_least():
    # 100 (1 - (60,000 / 128,000 + 7,000 / 8,000) / 2) = 32.8; and (1 - (60,000/128,000 + 0) / 2) = 76.6
    machines = [machine("empty", (1_000,) * 8), machine("last", (1_000,), order=1)]
    assert _scores("bestfit", machines, pod()) == [32, 76]


def test_dot_product_prefers_where_the_product_is_small():
    # cpu 64,000 x 4,000 / 128,000^2 = 0.0156; gpu 8,000 x 1,000 / 8,000^2 = 0.125, or 1,000 x 1,000 / 8,000^2 = 0.0156
    machines = [machine("empty", (1_000,) * 8), machine("last", (1_000,), order=1)]
    assert _scores("dotprod", machines, pod()) == [92, 98]


def test_packing_uses_shared_gpus_first_then_used_nodes_then_free_ones():
    machines = [
        machine("free", (1_000, 1_000)),
        machine("used", (1_000, 0), order=1),
        machine("shared", (600, 0), order=2),
        machine("tighter", (520, 1_000), order=3),
    ]
    assert _scores("packing", machines, HALF) == [31, 49, 94, 95]
    assert _scores("packing", machines, pod()) == [31, 49, -math.inf, 49]


def test_clustering_keeps_sizes_together():
    machines = [
        machine(name, (1_000,) * 8, order=i) for i, name in enumerate(("same", "mixed", "idle", "other"))
    ]
    packer = Packer(Fleet(machines), Clustering())
    for row, hosted in ((0, (HALF,)), (1, (HALF, pod())), (3, (pod(),))):
        for each in hosted:
            packer.put(each, Placed(row, packer.fleet.devices(row, each, 7)))
    # 25 x used / 8,000 inside each tier: 500 → 1, 1,500 → 4, 0, 1,000 → 3
    assert packer.scores(HALF)[0].tolist() == [76, 54, 25, 3]
    packer.remove(HALF, Placed(0, (7,)))
    assert packer.scores(HALF)[0].tolist() == [25, 54, 25, 3]


def test_random_takes_every_node_and_device_that_fits_and_no_other():
    machines = [machine("a", (500, 100, 700)), machine("b", (400,), order=1), machine("c", (500,), order=2)]
    packer = Packer(Fleet(machines), rule_of("random", setting(machines, [HALF])))
    seen = {packer.best(HALF) for _ in range(200)}
    assert seen == {Placed(0, (0,)), Placed(0, (2,)), Placed(2, (0,))}


def test_fgd_fills_the_gap_that_nobody_else_can_use():
    # Typical pods want 800 and 200. Taking 200 from the gap of 200 loses nothing; from a free GPU, nothing either for
    # the 800; from the 900 it makes 700, lost to the 800s.
    machines = [machine("big", (900,)), machine("gap", (200,), order=1)]
    small = pod(milli=200)
    scores = _scores("fgd", machines, small, [BIG, small])
    # F falls by 0.5 x 200 on the gap: 100 / (1 + exp(-0.1)) = 52.5; it grows by 0.5 x 700 on the big one: 41.3
    assert scores == [41, 52]


def test_fgd_takes_the_best_device_of_a_node():
    machines = [machine("n", (900, 1_000, 200))]
    small = pod(milli=200)
    packer = Packer(Fleet(machines), rule_of("fgd", setting(machines, [BIG, small])))
    assert packer.best(small) == Placed(0, (2,))


def test_ours_puts_pods_of_little_cpu_where_cpu_is_short():
    """A node with two cores left can only take the pod that wants one; a node with many should be left for the other."""
    light, heavy = pod(milli=500, cpu=1_000), pod(milli=500, cpu=16_000)
    machines = [machine("roomy", (500,), cpu=32_000), machine("short", (500,), cpu=2_000, order=1)]
    assert Packer(Fleet(machines), rule_of("ours", setting(machines, [light, heavy]))).best(light) == Placed(
        1, (0,)
    )


def test_ours_leaves_a_scarce_product_to_those_that_need_it():
    picky, easy = pod(kinds=("B",)), pod()
    machines = [machine("b", (1_000,), kind="B"), machine("a", (1_000,), kind="A", order=1)]
    workload = [picky] * 3 + [easy]
    assert Packer(Fleet(machines), rule_of("ours", setting(machines, workload))).best(easy) == Placed(1, (0,))


def test_the_gang_term_keeps_a_free_node_whole():
    machines = [machine("free", (1_000,) * 4), machine("used", (1_000, 1_000, 0, 0), order=1)]
    workload = [pod()] * 4
    made = setting(machines, workload)
    fragmentation = Fragmentation(made.typical, made.kinds)
    worth = Worth(worths_of(made.workload, made.stocks), made.kinds, 4)
    keeping = PricedFgd(fragmentation, worth, PricedFgdConfig(gang_milli=50.0))
    assert Packer(Fleet(machines), PricedFgd(fragmentation, worth)).best(pod()) == Placed(0, (0,))
    assert Packer(Fleet(machines), keeping).best(pod()) == Placed(1, (0,))
    # 3 GPUs broken at 50 each, in buckets of 2
    plain = Packer(Fleet(machines), PricedFgd(fragmentation, worth)).scores(pod())[0]
    charged = Packer(Fleet(machines), keeping).scores(pod())[0]
    assert (plain - charged).tolist() == [75, 0]


def test_an_unknown_rule_is_a_sentence():
    with pytest.raises(PackingError, match="no packing rule 'tetris'; choose one of random"):
        rule_of("tetris", setting([machine("a", (1_000,))], [pod()]))


@pytest.mark.parametrize("name", list(RULES))
def test_nothing_is_placed_on_nothing(name):
    machines: list[Machine] = []
    assert Packer(Fleet(machines), rule_of(name, setting(machines, []))).place(pod()) is None


# --------------------------------------------------------------------------------------------------- prices


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        pytest.param([pod()] * 3 + [pod(gpus=8)], 1.0, id="whole GPUs leave nothing over"),
        pytest.param([HALF] * 10, 1.0, id="halves fill GPUs"),
        pytest.param([pod(milli=810)] * 10, 0.81, id="one to a GPU, the rest is lost"),
        pytest.param(
            [pod(milli=600)] * 4 + [pod(milli=400)] * 2, 3_200 / 4_000, id="gaps for more than there are"
        ),
        pytest.param([pod(milli=400)] * 10, 0.8, id="two to a GPU"),
        pytest.param([NONE], 1.0, id="no GPU wanted"),
    ],
)
def test_the_best_fill_of_gpus(workload, expected):
    assert best_fill([Typical(*each) for each in _counts(workload)]) == pytest.approx(expected, abs=1e-9)


def test_a_pod_is_worth_the_gpus_it_costs():
    workload = _counts([pod(milli=810)] * 5 + [HALF] * 6 + [pod(gpus=2)])
    worths = worths_of([Typical(*each) for each in workload], [Stock("A", 4, 400_000, 10)])
    by_milli = {
        (shape.gpus, shape.milli): round(float(worth))
        for shape, worth in zip(worths.shapes, worths.pods, strict=True)
    }
    assert by_milli == {(1, 810): 1_000, (1, 500): 500, (2, 1_000): 2_000}
    assert worths.left_out == pytest.approx(0.0)


def test_a_product_that_is_short_has_a_price():
    workload = [Typical(shape_of(pod(kinds=("B",))), 9), Typical(shape_of(pod()), 1)]
    worths = worths_of(workload, [Stock("A", 1, 64_000, 5), Stock("B", 1, 64_000, 5)])
    assert worths.gpus.tolist() == pytest.approx([0.0, 1_000.0])
    assert worths.left_out > 0.3


def test_cpu_that_is_short_has_a_price():
    worths = worths_of([Typical(shape_of(pod(cpu=10_000)), 10)], [Stock("A", 10, 50_000, 1)])
    assert worths.cores[0] > 0.0
    assert worths.left_out == pytest.approx(1 - 5 / 9.7)


def test_the_worth_of_a_node_is_what_still_fits():
    workload = [Typical(shape_of(pod(milli=810, cpu=0)), 5), Typical(shape_of(pod(milli=500, cpu=0)), 6)]
    machines = [
        machine(str(i), free, order=i)
        for i, free in enumerate([(1_000, 1_000), (810, 0), (500, 499), (190, 0)])
    ]
    fleet = Fleet(machines)
    worth = Worth(worths_of(workload, stocks_of(machines)), fleet.kinds, 2)
    assert (worth.of(fleet, np.arange(4)) // 1_000).tolist() == [2_000, 1_000, 500, 0]


def test_a_node_without_cpu_is_worth_nothing():
    fleet = Fleet([machine("dry", (1_000,) * 4, cpu=0)])
    worth = Worth(
        worths_of([Typical(shape_of(pod(cpu=8_000)), 5)], [Stock("A", 4, 64_000, 1)]), fleet.kinds, 4
    )
    assert worth.of(fleet, np.array([0]))[0] == 0


# --------------------------------------------------------------------------------------------------- fleets


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: pod(cpu=-1), "no amount may be negative", id="a negative amount"),
        pytest.param(lambda: pod(milli=0), "milli must lie between 1 and 1000", id="a share of nothing"),
        pytest.param(
            lambda: pod(gpus=2, milli=500), "only a single GPU can be shared", id="two halves of two GPUs"
        ),
        pytest.param(
            lambda: Fleet([machine("a", (1,)), machine("a", (2,))]), "two machines have one name", id="twins"
        ),
        pytest.param(
            lambda: Fleet([machine("a", (1_001,))]), "free_millis lie outside", id="more than a whole device"
        ),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(PackingError, match=said):
        make()


def test_a_placement_that_does_not_fit_changes_nothing():
    fleet = Fleet([machine("a", (400,))])
    with pytest.raises(PackingError, match="does not fit on a"):
        fleet.take(HALF, Placed(0, (0,)))
    assert fleet.free.tolist() == [[400]]
    assert not fleet.log


def test_one_trial_for_each_distinct_level():
    fleet = Fleet([machine("a", (1_000, 700, 1_000, 300, 700))])
    trials = trials_of(fleet, shape_of(HALF), np.array([0]))
    assert list(zip(trials.device.tolist(), trials.old.tolist(), trials.new.tolist(), strict=True)) == [
        (0, 1_000, 500), (1, 700, 200)
    ]  # fmt: skip
