"""What a person sees while the demo runs, on a terminal and in a log, and what is printed at its end."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from console.demo.live import LiveTable, plain_line, print_summary, screen
from console.demo.run_data import DemoRun, JobFacts, Sample, ServiceFacts, SingleType
from tests.console.demo_runs import ASSISTANT, CHAT, HOSTILE, WRITER, bare, hour

TOTAL = 3600.0


@pytest.fixture(scope="module")
def run() -> DemoRun:
    return hour()


def at(run: DemoRun, seconds: float) -> Sample:
    return next(s for s in run.samples if s.seconds == seconds)


def terminal(width: int = 100, height: int = 40) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=height,
        color_system=None,
        legacy_windows=False,
    )


def log_file() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def output(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def shown(sample: Sample, run: DemoRun, width: int = 100, height: int = 40) -> list[str]:
    console = terminal(width, height)
    console.print(screen(sample, run, 37.0, TOTAL, console))
    return [Text.from_ansi(line).plain.rstrip() for line in output(console).splitlines()]


def until(run: DemoRun, seconds: float) -> DemoRun:
    return msgspec.structs.replace(run, happenings=[h for h in run.happenings if h.seconds <= seconds])


def test_the_screen_says_how_far_how_fast_and_how_well(run: DemoRun) -> None:
    lines = shown(at(run, 680.0), until(run, 680.0))
    text = "\n".join(lines)
    assert lines[0].startswith("11:20 of 1:00:00")
    assert lines[0].endswith("19%   37 s, 18 times real time")
    chat = next(line for line in lines if line.startswith(CHAT)).split()
    assert " ".join(chat[2:]) == "0 4 a10g + 1 l4 99.2 % 4.83"
    assert next(line for line in lines if line.startswith(WRITER)).split()[2:4] == ["96", "none"]
    assert "uncapped" in text
    assert "34." in next(line for line in lines if line.startswith("power"))
    assert "running, step 236 of 900" in next(line for line in lines if line.startswith("research/pretrain"))


def test_the_newest_decisions_are_told_in_sentences_each_kind_once(run: DemoRun) -> None:
    lines = shown(at(run, 1810.0), until(run, 1810.0))
    told = [line for line in lines if line.startswith(("30:0", "29:", "28:"))]
    assert "node a10g-1 has been silent for 4 s" in "\n".join(told)
    assert sum("leases of 34.9 kW" in line for line in told) == 1
    assert [line[:5] for line in told] == sorted(line[:5] for line in told)


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (100, 30), (200, 60)])
def test_the_screen_fits_the_terminal(run: DemoRun, width: int, height: int) -> None:
    lines = shown(at(run, 1810.0), until(run, 1810.0), width, height)
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width
    assert any(line.startswith(ASSISTANT[:10]) for line in lines)


@pytest.mark.parametrize(
    ("seconds", "state"), [(-40.0, "warming up"), (1800.0, "50%"), (TOTAL + 30.0, "finishing")]
)
def test_before_and_after_the_trace_the_state_has_a_name(run: DemoRun, seconds: float, state: str) -> None:
    sample = msgspec.structs.replace(at(run, 0.0), seconds=seconds)
    assert state in shown(sample, run)[0]
    assert "inf" not in plain_line(sample, run, 0.0, TOTAL)


def drive(run: DemoRun, console: Console, wall: float = 90.0, step: int = 10, **more: object) -> LiveTable:
    """A whole run of `wall` seconds, one update every `step` simulated seconds."""
    with LiveTable(TOTAL, console, **more) as live:  # type: ignore[arg-type]
        for sample in run.samples[60::step]:
            live.update(sample, run, sample.seconds / TOTAL * wall)
    return live


def test_360_updates_cost_less_than_a_second(run: DemoRun) -> None:
    began = time.thread_time()
    live = drive(run, terminal())
    assert time.thread_time() - began <= 1.0
    assert live.drawings >= 20


def test_the_slower_the_drawing_the_fewer_the_drawings(run: DemoRun) -> None:
    def costing(seconds: float) -> Iterator[float]:
        return itertools.count(0.0, seconds)

    cheap, dear = (
        drive(run, terminal(), cpu_seconds=costing(cost).__next__).drawings for cost in (0.001, 0.1)
    )
    assert cheap == pytest.approx(180, abs=40)
    assert dear <= 11


def test_the_last_sample_is_shown_even_when_it_came_too_soon_after_another(run: DemoRun) -> None:
    console = terminal()
    with LiveTable(TOTAL, console) as live:
        live.update(at(run, 10.0), run, 1.0)
        live.update(at(run, 3600.0), run, 1.01)
        assert "1:00:00 of 1:00:00" not in output(console)
    assert "1:00:00 of 1:00:00" in output(console)


def test_the_terminal_is_given_back_when_the_run_fails(run: DemoRun) -> None:
    console = terminal()

    def fail() -> None:
        with LiveTable(TOTAL, console) as live:
            live.update(at(run, 10.0), run, 1.0)
            raise RuntimeError("the gateway is gone")

    with pytest.raises(RuntimeError, match="the gateway is gone"):
        fail()
    assert output(console).rindex("\x1b[?25h") > output(console).rindex("\x1b[?25l")


def test_a_log_gets_a_line_every_tenth_of_the_way(run: DemoRun) -> None:
    console = log_file()
    drive(run, console, step=1)
    lines = output(console).splitlines()
    assert [line.split("%")[0].strip() for line in lines] == [str(p) for p in range(0, 101, 10)]
    assert "\x1b" not in output(console)
    half = lines[5]
    for fact in (
        "30:00 of 1:00:00",
        "45 s wall (40x)",
        f"{CHAT} ",
        "on 3 a10g + 2 l4",
        "99.2 % inside",
        "$61.94/h",
        "of 36.0 kW",
    ):
        assert fact in half


def test_a_log_of_a_run_that_stops_early_ends_with_its_last_moment(run: DemoRun) -> None:
    console = log_file()
    with LiveTable(TOTAL, console) as live:
        live.update(at(run, 10.0), run, 1.0)
        live.update(at(run, 700.0), run, 2.0)
        live.update(at(run, 900.0), run, 3.0)
    assert output(console).splitlines()[-1].strip().startswith("25% 15:00 of 1:00:00")


@pytest.mark.parametrize("total", [0.0, 1e-12, 3600.0])
def test_a_trace_of_no_length_is_shown_too(run: DemoRun, total: float) -> None:
    for console in (log_file(), terminal()):
        with LiveTable(total, console) as live:
            live.update(at(run, 0.0), run, 0.0)
        assert output(console)


@pytest.mark.parametrize("name", [HOSTILE, "n" * 1_000_000, ""], ids=["hostile", "a megabyte", "empty"])
def test_names_cannot_break_the_screen(name: str) -> None:
    run = hour(total=60.0)
    facts = msgspec.structs.replace(run.services[CHAT], name=name)
    sample = msgspec.structs.replace(
        run.samples[-1], load_per_second={name: 1.0}, held={name: 2}, replicas={name: {name: 1}}, gpus={name: 1},
        jobs={name: (name, 3)}, service_dollars_per_hour={},
    )  # fmt: skip
    told = [msgspec.structs.replace(h, subject=name, sentence=name) for h in run.happenings[:3]]
    odd = msgspec.structs.replace(
        run, services={name: facts}, jobs={name: JobFacts(name=name, phase=name)}, happenings=told, samples=[sample],
        node_failed=name, single_types=[SingleType(accelerator=name, dollars_per_hour=None, why_not=name)], summary={},
    )  # fmt: skip
    lines = shown(sample, odd, 100, 40)
    assert len(lines) <= 40
    assert max(len(line) for line in lines) <= 100
    assert len(plain_line(sample, odd, 1.0, 60.0)) < 1_000
    assert "\n" not in plain_line(sample, odd, 1.0, 60.0)
    console = log_file()
    print_summary(odd, console)
    assert "\x1b" not in output(console)
    assert len(output(console)) < 20_000


def test_requests_still_to_come_are_not_counted_as_missed(run: DemoRun) -> None:
    facts = msgspec.structs.replace(run.services[CHAT], attained=19, total=5_000, ttft_seconds=[0.4] * 20)
    early = msgspec.structs.replace(run, services={CHAT: facts})
    assert "95.0 %" in next(line for line in shown(at(run, 10.0), early) if line.startswith(CHAT))
    assert "95.0 % inside" in plain_line(at(run, 10.0), early, 1.0, TOTAL)


def test_more_services_than_fit_are_counted(run: DemoRun) -> None:
    services = {f"s{i:02d}": run.services[CHAT] for i in range(25)}
    sample = msgspec.structs.replace(at(run, 10.0), load_per_second={}, held={}, replicas={})
    lines = shown(sample, msgspec.structs.replace(run, services=services))
    assert any("15 more services" in line for line in lines)


def test_a_missed_objective_and_an_overload_are_red(run: DemoRun) -> None:
    facts: ServiceFacts = msgspec.structs.replace(
        run.services[CHAT], attained=10, total=99, ttft_seconds=[1.0] * 20
    )
    sample = msgspec.structs.replace(at(run, 10.0), power_watts=37_000.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40, color_system="standard")
    console.print(
        screen(
            sample, msgspec.structs.replace(run, services={CHAT: facts}, happenings=[]), 9.0, TOTAL, console
        )
    )
    red = [line for line in output(console).splitlines() if "\x1b[1;31m" in line]
    assert len(red) == 2
    assert "50.0 %" in red[0]
    assert "37.0 kW of 36.0 kW" in red[1]


def test_the_final_table_holds_every_figure(run: DemoRun) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=120)
    print_summary(run, console)
    text = output(console)
    for fact in (
        "99.4 % ≥ 95 %",
        "79 of 120 ms",
        "18,810 served, 0 rejected, 0 lost, 0 malformed of 18,810 lines",
        "$67.40/h, 24.4 % less than the best single GPU type, a100-80",
        "l4 alone cannot: TPOT of shop/assistant: 187 ms > 120 ms",
        "h100 alone $110.08/h",
        "at most 20 a100-80 + 5 l4 + 4 a10g; peak use 74.1 %",
        "0 s over the 36.0 kW rating",
        "without caps 19 min over it",
        "a10g-1 at 30:00: 37 requests in flight, 37 retried, 0 lost",
        "research/finetune: succeeded at step 1,500 of 1,500, 1 restart",
        "842, 0 without a reason",
        "60 min simulated in 74 s",
    ):
        assert fact in text


def test_the_final_table_of_services_fits_eighty_columns(run: DemoRun) -> None:
    console = log_file()
    print_summary(run, console)
    lines = output(console).splitlines()
    assert len([line for line in lines if line.startswith("shop/")]) == 3
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith(f"{WRITER} ") and line.split()[-2:] == ["3", "a10g"] for line in lines)


def test_a_run_of_which_nothing_is_known_has_a_final_table_too() -> None:
    console = log_file()
    print_summary(bare(), console)
    assert "no single GPU type keeps every objective" in output(console)
    assert "nan" not in output(console)
