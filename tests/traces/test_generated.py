"""Generated requests: their statistics are the ones that were asked for, and a seed gives them again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from simulator.traces import clients, powerlaw
from simulator.traces.arrivals import faster, gamma_arrivals, generator, poisson_arrivals, within
from simulator.traces.requests import TraceError, TraceRequest


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_arrivals_have_the_rate_and_cv(cv: float) -> None:
    gaps = np.diff([0.0, *itertools.islice(gamma_arrivals(5.0, cv, generator(1, "gaps")), 200_000)])
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_arrivals_are_gamma_arrivals_of_cv_one() -> None:
    one = list(itertools.islice(poisson_arrivals(2.0, generator(3, "x")), 10))
    assert one == list(itertools.islice(gamma_arrivals(2.0, 1.0, generator(3, "x")), 10))


@pytest.mark.parametrize(("rate", "cv"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_a_rate_or_cv_that_is_none_is_refused(rate: float, cv: float) -> None:
    with pytest.raises(ValueError, match="must be greater than 0"):
        next(gamma_arrivals(rate, cv, generator(1)))


# The published law: ranks 1 .. 2 mean - 1, scaled to the mean before rounding up and cutting at 6,144.
@pytest.mark.parametrize("mean", sorted(powerlaw.EXPONENTS))
def test_power_law_lengths_have_their_mean_and_never_pass_the_longest(mean: int) -> None:
    drawn = powerlaw.lengths(mean, generator(1, "lengths"), 200_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.05)
    assert drawn.min() >= 1
    assert drawn.max() <= powerlaw.LONGEST


def test_power_law_requests_begin_at_zero_and_a_seed_gives_them_again() -> None:
    first = list(powerlaw.power_law(128, 512, 4.3, 500, seed=5, cv=2.0))
    assert first == list(powerlaw.power_law(128, 512, 4.3, 500, seed=5, cv=2.0))
    assert first != list(powerlaw.power_law(128, 512, 4.3, 500, seed=6, cv=2.0))
    assert (first[0].arrived_seconds, len(first)) == (0.0, 500)


def test_a_mean_without_a_published_exponent_is_refused() -> None:
    with pytest.raises(ValueError, match="published are 128, 256, 512, 1024"):
        powerlaw.lengths(100, generator(1), 10)


def rows(count: int) -> list[TraceRequest]:
    return [TraceRequest(n, float(n), 1, 1) for n in range(count)]


def test_a_stream_is_made_faster_and_cut() -> None:
    assert [r.arrived_seconds for r in faster(rows(4), 2.0)] == [0.0, 0.5, 1.0, 1.5]
    assert [r.line for r in within(rows(9), 3.0)] == [0, 1, 2]
    assert [r.line for r in within(rows(9), 99.0, most=2)] == [0, 1]
    with pytest.raises(ValueError, match="more than 0"):
        list(faster(rows(1), 0.0))


# clients

EDGES = np.array([0, 25, 100, 250])


def archive(
    folder: Path, rates: list[list[float]], cv: float = 1.0, mean: float = np.nan, **changed: object
) -> Path:
    shape = np.shape(rates)
    arrays: dict[str, object] = {
        "m_rate": np.array(rates),
        "m_cv": np.full(shape, cv),
        "in_bucket_edges": EDGES,
        "out_bucket_edges": EDGES,
    }
    for side in ("in", "out"):
        arrays[f"m_{side}_mean"] = np.full((1, shape[1] if len(shape) > 1 else 1), mean)
        arrays[f"m_{side}_hist"] = np.array([[0.2, 0.5, 0.3]])
    path = folder / "clients.npz"
    np.savez(path, **{name: value for name, value in (arrays | changed).items() if value is not None})  # type: ignore[arg-type]
    return path


def test_clients_send_at_the_rate_of_each_window(tmp_path: Path) -> None:
    windows = clients.read_windows(archive(tmp_path, [[4.0, 0.0], [0.0, 2.0], [8.0, 1.0]]), "m")
    found = list(clients.client_requests(windows, seed=1))
    by_window = np.bincount([int(r.arrived_seconds // 600) for r in found], minlength=3)
    assert by_window == pytest.approx([2_400, 1_200, 5_400], rel=0.08)
    assert all(a.arrived_seconds <= b.arrived_seconds for a, b in itertools.pairwise(found))
    assert [r.line for r in found] == list(range(1, len(found) + 1))
    assert {r.session for r in found if r.arrived_seconds < 600} == {"0"}


@pytest.mark.parametrize("cv", [0.5, 4.0])
def test_a_clients_gaps_have_its_cv(cv: float, tmp_path: Path) -> None:
    windows = clients.read_windows(archive(tmp_path, [[40.0]] * 4, cv=cv), "m")
    gaps = np.diff([r.arrived_seconds for r in clients.client_requests(windows, seed=2)])
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


def test_token_counts_follow_the_histogram_and_the_clients_own_mean(tmp_path: Path) -> None:
    windows = clients.read_windows(archive(tmp_path, [[20.0]]), "m")
    drawn = np.array([r.input_tokens for r in clients.client_requests(windows, seed=3)])
    shares = np.histogram(drawn, [0, 25, 100, 251])[0] / len(drawn)
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.02)
    own = clients.read_windows(archive(tmp_path, [[20.0]], mean=700.0), "m")
    drawn = np.array([r.output_tokens for r in clients.client_requests(own, seed=3)])
    assert drawn.mean() == pytest.approx(700.0, rel=0.03)


def test_a_seed_gives_the_same_requests_and_a_part_is_drawn_alone(tmp_path: Path) -> None:
    windows = clients.read_windows(archive(tmp_path, [[1.0], [2.0], [3.0]]), "m")
    once, again = (list(clients.client_requests(windows, seed=4, first_window=1, count=1)) for _ in range(2))
    assert once == again
    assert all(r.arrived_seconds < 600 for r in once)
    with pytest.raises(ValueError, match="windows 2 to 5 of 3"):
        list(clients.client_requests(windows, seed=4, first_window=2, count=3))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"m_cv": None}, "no array", id="an array is missing"),
        pytest.param({"m_cv": np.ones((3, 7))}, "do not fit each other", id="arrays of other shapes"),
        pytest.param({"m_rate": np.array([[-1.0]])}, "negative or not finite", id="a negative rate"),
        pytest.param(
            {"m_rate": np.array([[np.nan]])}, "negative or not finite", id="a rate that is no number"
        ),
        pytest.param({"m_in_hist": np.zeros((1, 3))}, "is empty, negative", id="no lengths at all"),
        pytest.param(
            {"m_out_hist": np.array([[0.5, -0.1, 0.6]])}, "is empty, negative", id="fewer than none"
        ),
        pytest.param(
            {"in_bucket_edges": np.array([0, 25, 25, 90])}, "do not rise", id="a bucket without width"
        ),
    ],
)
def test_an_archive_that_cannot_be_used_is_refused_with_a_sentence(
    changed: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    path = archive(tmp_path, [[1.0]], **changed)
    with pytest.raises(TraceError, match=sentence):
        clients.read_windows(path, "m")


def test_an_unknown_model_or_another_file_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, [[1.0]])
    assert clients.models_of(path) == ("m",)
    with pytest.raises(TraceError, match="no model 'n'; it has m"):
        clients.read_windows(path, "n")
    damaged = path.read_bytes()
    for cut in (damaged[: len(damaged) // 2], damaged[:200] + bytes(40) + damaged[240:]):
        path.write_bytes(cut)
        with pytest.raises(TraceError, match=r"clients\.npz: "):
            clients.read_windows(path, "m")
    other = tmp_path / "other.npz"
    other.write_text("no archive")
    with pytest.raises(TraceError, match=r"cannot be read as \.npz"):
        clients.read_windows(other, "m")
