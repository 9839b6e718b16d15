"""What a person watches while the demo runs: a table on a terminal, a line every tenth of the way elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from console.demo.final_table import print_summary
from console.demo.findings import WARNINGS
from console.demo.run_data import DemoRun, Happening, Sample, ServiceFacts
from console.demo.words import clean, clock, count, dollars, kilowatts, mix, share, short

__all__ = ["LiveTable", "print_summary"]

LEAST_WALL_SECONDS = 0.4  # between two drawings; more where drawing is slow
MOST_CPU_SHARE = 0.007  # of the wall time, spent on drawing: 0.6 s in a run of 90 s
PLAIN_STEPS = 10
MOST_ROWS = 10


class LiveTable:
    """A context manager that shows how a run of `total_seconds` of simulated time is getting on.

    Call `update` as often as you like: it draws only so often that drawing takes less than a hundredth of the time.
    """

    def __init__(
        self, total_seconds: float, console: Console, cpu_seconds: Callable[[], float] = time.thread_time
    ) -> None:
        """`cpu_seconds` measures what a drawing costs this thread."""
        self._total = max(total_seconds, 1e-9)
        self._console = console
        self._cpu_seconds = cpu_seconds
        self._live: Live | None = None
        self._next_wall = 0.0
        self._plain_step = -1
        self._pending: tuple[Sample, DemoRun, float] | None = None
        self.drawings = 0

    def __enter__(self) -> Self:
        """Takes the terminal over, where there is one."""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                Text("The cluster is starting: certificates, agents, gateway, operator …"),
                console=self._console,
                auto_refresh=False,
                vertical_overflow="crop",
            )
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shows the last sample and gives the terminal back."""
        if self._pending is not None:
            self._show(*self._pending)
        if self._live is not None:
            self._live.stop()

    def update(self, sample: Sample, run: DemoRun, wall_seconds: float) -> None:
        """The newest sample of `run`, `wall_seconds` after it began."""
        if self._live is None:
            self._maybe_line(sample, run, wall_seconds)
            return
        if wall_seconds < self._next_wall:
            self._pending = (sample, run, wall_seconds)
            return
        before = self._cpu_seconds()
        self._show(sample, run, wall_seconds)
        cost = self._cpu_seconds() - before
        self._next_wall = wall_seconds + max(LEAST_WALL_SECONDS, cost / MOST_CPU_SHARE)

    def _show(self, sample: Sample, run: DemoRun, wall_seconds: float) -> None:
        self._pending = None
        if self._live is None:
            self._line(sample, run, wall_seconds)
            return
        self.drawings += 1
        self._live.update(screen(sample, run, wall_seconds, self._total, self._console), refresh=True)

    def _maybe_line(self, sample: Sample, run: DemoRun, wall_seconds: float) -> None:
        step = int(PLAIN_STEPS * min(max(sample.seconds, 0.0) / self._total, 1.0) + 1e-9)
        if step > self._plain_step:
            self._plain_step = step
            self._pending = None
            self._line(sample, run, wall_seconds)
        elif sample.seconds < self._total:
            self._pending = (sample, run, wall_seconds)

    def _line(self, sample: Sample, run: DemoRun, wall_seconds: float) -> None:
        self.drawings += 1
        text = plain_line(sample, run, wall_seconds, self._total)
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


# ---------------------------------------------------------------------------------------------------- plain line


def plain_line(sample: Sample, run: DemoRun, wall_seconds: float, total: float) -> str:
    """The state of the run in one line, for logs."""
    done = min(max(sample.seconds, 0.0) / total, 1.0)
    parts = [
        f"{done:4.0%} {clock(sample.seconds)} of {clock(total)}, {wall_seconds:.0f} s wall{_speed(sample, wall_seconds)}"
    ]
    for name in list(run.services)[:MOST_ROWS]:
        held = sample.held.get(name, 0)
        text = f"{short(name, 32)} {sample.load_per_second.get(name, 0.0):.1f} req/s on {mix(sample.replicas.get(name, {}))}"
        text += f", {count(held)} held" if held else ""
        parts.append(text + f", {_attained(run, name)} inside")
    parts.append(dollars(sample.dollars_per_hour))
    if sample.rating_watts > 0.0:
        parts.append(f"{kilowatts(sample.power_watts)} of {kilowatts(sample.rating_watts)}")
    parts += [
        f"{short(name, 32)} {clean(phase, 20).lower()}"
        for name, (phase, _) in list(sample.jobs.items())[:MOST_ROWS]
    ]
    return " | ".join(parts)


def _speed(sample: Sample, wall_seconds: float) -> str:
    return f" ({sample.seconds / wall_seconds:.0f}x)" if wall_seconds >= 1.0 and sample.seconds > 0.0 else ""


def _attained(run: DemoRun, name: str) -> str:
    facts = run.services[name]
    return share(facts.attained / ended(facts)) if ended(facts) else "–"


def ended(facts: ServiceFacts) -> int:
    """Requests of a service that have ended so far; `total` may count those still to come."""
    return len(facts.ttft_seconds)


# -------------------------------------------------------------------------------------------------------- screen


def screen(
    sample: Sample, run: DemoRun, wall_seconds: float, total: float, console: Console
) -> RenderableType:
    """The whole screen; the number of decisions shown depends on the height of the terminal."""
    parts: list[RenderableType] = [_clock_row(sample, wall_seconds, total), _services(sample, run)]
    parts += ["", _facts(sample, run)]
    rows = 4 + min(len(run.services), MOST_ROWS) + 3 + min(len(sample.jobs), MOST_ROWS)
    room = max(2, min(12, console.height - rows - 2))
    parts.append(_decisions(run.happenings, room, console.width))
    return Group(*parts)


def _clock_row(sample: Sample, wall_seconds: float, total: float) -> Table:
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    done = min(max(sample.seconds, 0.0), total)
    state = (
        "warming up"
        if sample.seconds < 0
        else "finishing"
        if sample.seconds > total
        else f"{done / total:.0%}"
    )
    speed = (
        f", {sample.seconds / wall_seconds:.0f} times real time"
        if wall_seconds >= 1.0 and sample.seconds > 0
        else ""
    )
    row.add_row(
        Text.assemble((clock(sample.seconds), "bold"), f" of {clock(total)}"),
        ProgressBar(total=total, completed=done, complete_style="cyan", finished_style="cyan"),
        Text(f"{state}   {wall_seconds:.0f} s{speed}"),
    )
    return row


def _services(sample: Sample, run: DemoRun) -> Table:
    table = Table(
        box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim", collapse_padding=True
    )
    table.add_column("\nservice", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("load\nreq/s", justify="right", no_wrap=True)
    table.add_column("\nheld", justify="right", no_wrap=True)
    table.add_column("\nready replicas", ratio=4, no_wrap=True, overflow="ellipsis")
    table.add_column("SLO\nso far", justify="right", no_wrap=True)
    table.add_column("\n$/h", justify="right", no_wrap=True)
    for name in list(run.services)[:MOST_ROWS]:
        held, facts = sample.held.get(name, 0), run.services[name]
        ready = mix(sample.replicas.get(name, {}))
        kept = not ended(facts) or facts.attained / ended(facts) >= facts.percentile
        money = sample.service_dollars_per_hour.get(name)
        table.add_row(
            Text(short(name, 48)),
            f"{sample.load_per_second.get(name, 0.0):.1f}",
            Text(count(held), style="yellow" if held else "dim"),
            Text(ready, style="dim" if ready == "none" else ""),
            Text(
                _attained(run, name), style="green" if kept and ended(facts) else "" if kept else "bold red"
            ),
            f"{money:.2f}" if money is not None else "",
        )
    left = len(run.services) - MOST_ROWS
    gpus = sum(sample.gpus.values())
    table.add_row(
        Text(f"{left} more services" if left > 0 else "all", style="dim"), "", "",
        Text(f"{gpus} GPUs, {share(sample.serving_use)} in use", style="dim"), "",
        Text(f"{sample.dollars_per_hour:.2f}", style="bold"),
    )  # fmt: skip
    return table


def _facts(sample: Sample, run: DemoRun) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True, min_width=20, overflow="ellipsis")
    grid.add_column(width=18)
    grid.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    if sample.rating_watts > 0.0:
        over = sample.power_watts > sample.rating_watts
        colour = "red" if over else "cyan"
        free = (
            f", uncapped {kilowatts(sample.uncapped_watts)}"
            if sample.uncapped_watts > sample.power_watts
            else ""
        )
        grid.add_row(
            Text("power"),
            _bar(sample.power_watts, sample.rating_watts, colour),
            Text(
                f"{kilowatts(sample.power_watts)} of {kilowatts(sample.rating_watts)}{free}",
                style="bold red" if over else "",
            ),
        )
    for name, (phase, step) in list(sample.jobs.items())[:MOST_ROWS]:
        steps = run.jobs[name].steps if name in run.jobs else 0
        restarts = run.jobs[name].restarts if name in run.jobs else 0
        told = f"{clean(phase, 24).lower()}, step {count(step)} of {count(steps)}"
        told += f", {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
        grid.add_row(Text(short(name, 30)), _bar(float(step), float(max(steps, 1)), "cyan"), Text(told))
    return grid


def _bar(value: float, total: float, colour: str) -> ProgressBar:
    return ProgressBar(
        total=total,
        completed=min(max(value, 0.0), total),
        width=24,
        complete_style=colour,
        finished_style=colour,
    )


def _decisions(happenings: list[Happening], room: int, width: int) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True, justify="right", style="dim")
    grid.add_column(ratio=1, overflow="fold")
    seen: set[tuple[str, str]] = set()
    shown: list[tuple[str, Text]] = []
    for happening in reversed(happenings[-200:]):
        if (happening.subject, happening.code) in seen:
            continue
        seen.add((happening.subject, happening.code))
        text = Text.assemble((short(happening.subject, 40), "bold"), ": ")
        text.append(clean(happening.sentence, 240), style="red" if happening.verdict in WARNINGS else "")
        room -= -(-len(text) // max(width - 12, 20))
        if room < 0:
            break
        shown.append((clock(happening.seconds), text))
    grid.add_row("", "")
    for when, text in reversed(shown):
        grid.add_row(when, text)
    return grid
