"""Figures, words, colours and the thinning of series that report and terminal share."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from console.demo import words
from console.demo.findings import columns_of, findings_of, latency_shares
from console.demo.plots_labels import spread
from console.demo.plots_series import changes, thinned
from console.demo.plots_style import gpu_colours, service_colours
from console.demo.run_data import ServiceFacts, SingleType
from tests.console.demo_runs import CHAT, bare, hour

NAN = float("nan")


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (words.clock, 1865.4, "31:05"),
        (words.clock, 3600, "1:00:00"),
        (words.clock, -30.2, "−0:30"),
        (words.clock, -0.2, "0:00"),
        (words.clock, NAN, "–"),
        (words.share, 0.9999, "99.9 %"),
        (words.share, 1.0, "100 %"),
        (words.share, 0.29, "29.0 %"),
        (words.share, 0.0, "0 %"),
        (words.span, 0.0449, "45 ms"),
        (words.span, 0.9999, "1 s"),
        (words.span, 0.0, "0 s"),
        (words.span, 2.413, "2.41 s"),
        (words.span, 31.4, "31 s"),
        (words.span, 1163, "19 min"),
        (words.span, math.inf, "–"),
        (words.dollars, 1234.5, "$1,234.50/h"),
        (words.kilowatts, 36_000, "36.0 kW"),
        (words.kilowatts, 640, "640 W"),
        (words.mix, {"l4": 2, "h100": 4, "a10g": 0}, "4 h100 + 2 l4"),
        (words.mix, {}, "none"),
        (words.listed, ["a", "b", "c"], "a, b and c"),
        (words.short, "namespace-of-a-very-long-team/a-service-that-ends-in-a-number-17", None),
    ],
)
def test_words(function, value, text) -> None:
    shown = function(value)
    if text is None:
        assert len(shown) == words.LONGEST_NAME
        assert shown.startswith("namespace-of")
        assert shown.endswith("number-17")
    else:
        assert shown == text


def test_a_duration_stands_beside_its_objective() -> None:
    assert words.against(0.079, 0.12) == "79 of 120 ms"
    assert words.against(0.31, 3.0) == "310 ms of 3 s"
    assert words.against(NAN, 3.0) == "– of 3 s"


@given(st.text(max_size=200), st.integers(8, 60))
@example("\xad soft hyphen", 20)
def test_cleaned_text_is_one_printable_bounded_line(text: str, longest: int) -> None:
    line = words.clean(text, longest)
    assert len(line) <= longest
    assert "\n" not in line
    assert all(c.isprintable() for c in line)
    assert len(words.short(text, longest)) <= longest


def test_figures_come_from_the_summary_where_it_has_them() -> None:
    run = hour(total=120.0)
    told = findings_of(run, columns_of(run))
    assert (told.cost, told.uncapped_over_seconds, told.decisions) == (67.4, 1163.0, 842)
    assert told.saved == pytest.approx(1 - 67.4 / 89.21)


def test_figures_are_worked_out_where_there_is_no_summary() -> None:
    run = msgspec.structs.replace(hour(total=700.0), summary={})
    found = findings_of(run, columns_of(run))
    live = [s for s in run.samples if s.seconds >= 0]
    assert found.cost == pytest.approx(np.mean([s.dollars_per_hour for s in live]))
    assert found.uncapped_over_seconds == sum(1 for s in run.samples if s.uncapped_watts > s.rating_watts)
    assert found.over_seconds == 0.0
    assert found.decisions == len(run.happenings)
    assert {s.name: s.requests for s in found.services}[CHAT] == run.services[CHAT].total


def test_lines_must_add_up() -> None:
    run = bare(
        data_lines=10,
        malformed_lines=1,
        summary={"served": 7, "rejected": 1, "lost": 1, "malformed_lines": 1},
    )
    assert findings_of(run, columns_of(run)).accounted
    short_of_one = msgspec.structs.replace(run, summary=run.summary | {"served": 6})
    assert not findings_of(short_of_one, columns_of(short_of_one)).accounted


def test_only_a_type_that_keeps_the_objectives_is_a_rival() -> None:
    run = bare(
        single_types=[
            SingleType(accelerator="l4", dollars_per_hour=3.0, why_not="too slow"),
            SingleType(accelerator="a10g", dollars_per_hour=None),
            SingleType(accelerator="h100", dollars_per_hour=9.0),
            SingleType(accelerator="a100", dollars_per_hour=8.0),
        ]
    )
    best = findings_of(run, columns_of(run)).best
    assert best is not None
    assert best.accelerator == "a100"


def test_a_request_with_one_token_has_kept_the_pace_and_one_never_answered_has_not() -> None:
    facts = ServiceFacts(
        name="s", model="m", ttft_objective_seconds=1.0, tpot_objective_seconds=0.1, percentile=0.95,
        arrived_seconds=[0, 1, 2, 3], ttft_seconds=[0.5, 0.5, 2.0, NAN], tpot_seconds=[0.05, NAN, 0.2, NAN],
    )  # fmt: skip
    assert latency_shares(facts) == (0.5, 0.5)


# ----------------------------------------------------------------------------------------------- series and labels

SERIES = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(SERIES, st.integers(1, 30))
def test_thinning_keeps_the_mean_or_the_peak(values: list[int], most: int) -> None:
    seconds, y = np.arange(len(values), dtype=float), np.array(values, dtype=float)
    x, peaks = thinned(seconds, y, most, how="max")
    assert peaks.max() == y.max()
    _, means = thinned(seconds, y, most)
    assert means.size == x.size <= most
    assert means.min() >= y.min()
    assert means.max() <= y.max()


@given(SERIES)
def test_steps_keep_every_value_they_had(values: list[int]) -> None:
    seconds, y = np.arange(len(values), dtype=float), np.array(values, dtype=float)
    x, (kept,) = changes(seconds, y)
    again = kept[np.searchsorted(x, seconds, side="right") - 1]
    assert (again == y).all()


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_are_pushed_apart_and_stay_inside_where_they_fit(wanted: list[float]) -> None:
    placed = spread(sorted(wanted), 14.0, 100.0)
    assert all(b - a >= 14.0 - 1e-9 for a, b in itertools.pairwise(placed))
    if placed:
        assert placed[-1] <= 100.0 + 1e-9
        assert placed[0] >= 0.0 or len(placed) > 7


# ----------------------------------------------------------------------------------------------------------- colours

# Machado, Oliveira, Fernandes: "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
SIGHT = {
    "full": np.eye(3),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]),
}  # fmt: skip


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a hex colour as that sight has it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    linear = sight @ np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0.0, 1.0) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    "colours",
    [gpu_colours(["l4", "a10g", "a100-80", "h100"]), service_colours(["a", "b", "c"])],
    ids=["GPU types", "services"],
)
def test_colours_stay_apart_for_every_eye(colours: dict[str, str], sight: str) -> None:
    seen = [lab(colour, SIGHT[sight]) for colour in colours.values()]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 20.0


def test_a_known_type_has_its_colour_whoever_stands_beside_it() -> None:
    assert gpu_colours(["h100", "zeta"])["h100"] == gpu_colours(["l4", "H100", "a10g", "h100"])["h100"]
    assert gpu_colours(["H100"])["H100"] == gpu_colours(["h100"])["h100"]
    many = gpu_colours([f"gpu-{i}" for i in range(9)])
    assert len(many) == 9
    assert len(set(gpu_colours(["l4", "x", "y", "z", "a10g"]).values())) == 5
