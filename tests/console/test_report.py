"""The report is one safe, self-contained page that shows what the run's data say, whatever the run was like."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from console.demo.report import page, reproduce, write_report
from console.demo.run_data import DemoRun, Happening
from console.demo.words import clean
from tests.console.demo_runs import ASSISTANT, CHAT, HOSTILE, WRITER, bare, hour
from tests.console.odd_runs import RUNS, changed, ordinary

SVG = "{http://www.w3.org/2000/svg}"
PLOTS = ("load", "replicas", "cost", "latency", "distribution", "power", "jobs", "timeline")
MOST_BYTES = 3_000_000


@cache
def written(case: str) -> str:
    return page(RUNS[case]())


def parsed(text: str) -> ET.Element:
    """The page as a tree; raises where it is not well-formed."""
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own page


def words_of(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def plot(tree: ET.Element, key: str) -> ET.Element:
    return next(e for e in tree.iter(f"{SVG}svg") if e.get("id") == f"plot-{key}")


def labels(tree: ET.Element, key: str) -> list[str]:
    return ["".join(e.itertext()).strip() for e in plot(tree, key).iter(f"{SVG}text")]


def title(tree: ET.Element, key: str) -> str:
    figure = next(e for e in tree.iter("figure") if e.get("id") == f"figure-{key}")
    return words_of(figure.find("h3"))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", RUNS)
def test_the_page_is_well_formed_small_and_complete(case: str) -> None:
    tree = parsed(written(case))
    assert len(written(case).encode()) <= MOST_BYTES
    assert {e.get("id") for e in tree.iter("figure")} == {f"figure-{key}" for key in PLOTS}
    assert len([e for e in tree.iter("div") if e.get("class") == "tile"]) == 8


@pytest.mark.parametrize("case", RUNS)
def test_the_page_loads_nothing_and_runs_nothing(case: str) -> None:
    text = written(case)
    tree = parsed(text)
    assert not [
        e.tag
        for e in tree.iter()
        if e.tag.rpartition("}")[2] in {"script", "link", "iframe", "img", "object", "image"}
    ]
    for element in tree.iter():
        for name, value in element.attrib.items():
            bare_name = name.rpartition("}")[2].lower()
            assert not bare_name.startswith("on")
            if bare_name in {"href", "src"}:
                assert value.startswith("#"), f"{element.tag} {name}={value}"
    style = "".join(e.text or "" for e in tree.iter("style"))
    assert "@import" not in style
    assert re.findall(r"url\((?!#)[^)]*\)", text) == []
    assert "default-src 'none'" in next(
        e.get("content", "") for e in tree.iter("meta") if e.get("http-equiv")
    )


@pytest.mark.parametrize("case", [c for c in RUNS if c not in {"names of a megabyte", "empty names"}])
def test_no_number_without_meaning_is_shown(case: str) -> None:
    tree = parsed(written(case))
    shown = " ".join(words_of(e) for e in tree.iter() if e.tag in {"header", "main", "footer"})
    assert not re.search(r"\b(nan|None|inf|NaN)\b|\{\}|\[\]", shown)


def test_ids_are_unique_so_that_links_and_clips_meet_their_own() -> None:
    ids = [e.get("id") for e in parsed(written("an ordinary hour")).iter() if e.get("id")]
    assert sorted(ids) == sorted(set(ids))


def test_each_reference_inside_a_plot_has_its_target() -> None:
    tree = parsed(written("an ordinary hour"))
    ids = {e.get("id") for e in tree.iter()}
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', written("an ordinary hour"))
    assert used
    assert {a or b for a, b in used} <= ids


@pytest.mark.parametrize(
    ("what", "figure", "more"),
    [
        ("Cost of serving ✓ met", "$67.40/h", "24.4 % less than a100-80 alone, $89.21/h"),
        ("Worst attainment ✓ met", "96.4 %", "shop/batch-writer 96.4 %"),
        ("Requests served ✓ met", "18,810", "0 rejected, 0 lost, 0 malformed of 18,810 lines"),
        ("GPUs serving, at most", "29 of 128", "20 a100-80 + 5 l4 + 4 a10g; peak use 74.1 %"),
        ("Over the 36.0 kW rating ✓ met", "0 s", "without caps 19 min over, up to 40."),
        ("Node failure ✓ met", "a10g-1", "at 30:00 with 37 requests in flight: 37 retried, 0 lost"),
        ("Jobs succeeded ✓ met", "2 of 2", "1 restart"),
        ("Decisions explained ✓ met", "842", "0 without a reason; 2 blocked"),
    ],
    ids=lambda text: text[:24],
)
def test_the_headline_figures_are_those_of_the_run(what: str, figure: str, more: str) -> None:
    tree = parsed(written("an ordinary hour"))
    tiles = {}
    for tile in (e for e in tree.iter("div") if e.get("class") == "tile"):
        parts = {e.get("class"): e for e in tile}
        tiles[" ".join(e.text or "" for e in parts["what"])] = (
            words_of(parts["figure"]),
            words_of(parts["more"]),
        )
    assert tiles[what][0] == figure
    assert more in tiles[what][1]


def test_broken_promises_are_said_to_be_broken() -> None:
    summary = ordinary().summary | {
        "lost": 3,
        "served": 18_807,
        "over_power_seconds": 4,
        "cost_per_hour": 95.0,
    }
    tree = parsed(page(changed(hour(total=700.0), summary=summary, data_lines=18_810)))
    unmet = [words_of(e) for e in tree.iter("div") if e.get("class") == "tile" and "✗ missed" in words_of(e)]
    assert len(unmet) == 4
    assert title(tree, "cost").startswith("$95.00/h on average: 6.4 % more than")
    assert title(tree, "power").startswith("Power was over the 36.0 kW rating for 4 s")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("load", "shop/batch-writer only from 10:00"),
        ("replicas", "shop/chat on 4 a10g + 2 l4"),
        ("cost", "24.4 % less than the best single type that keeps the objectives, a100-80 ($89.21/h)"),
        ("latency", "Every service kept its promise"),
        ("distribution", "Of 18,810 requests, 98."),
        ("power", "without caps it would have been over it for 19 min"),
        ("jobs", "Both training jobs succeeded; restarted: research/finetune once"),
        ("timeline", "842 decisions, each with its reason; the node's failure was answered 4 s after"),
    ],
)
def test_the_title_of_each_plot_states_its_finding(key: str, said: str) -> None:
    assert said in title(parsed(written("an ordinary hour")), key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("load", [CHAT, ASSISTANT, WRITER, "arrived, mean 1.9 req/s", "measured by the operator", "held: up to 112 at 11:34", "requests per second"]),
        ("replicas", [CHAT, "a100-80: 5", "l4: 2 at the end, 3 at most", "a10g: 4", "ready replicas"]),
        ("cost", ["a100-80 alone $89.21/h, the best", "h100 alone $110.08/h", "l4 alone cannot, see above",
                  "Plimsoll, mean $67.40/h", "dollars per hour"]),
        ("latency", [f"{CHAT}: time to first token", f"{WRITER}: time per token after it", "objective 3 s",
                     "objective 120 ms", "p95", "median", "100 s"]),
        ("distribution", [f"{CHAT}: 99.3 % within 3 s", "share of requests", "1×", "100 %"]),
        ("power", ["rating 36.0 kW", "without caps", "drawn", "leased", "kilowatts"]),
        ("jobs", ["research/finetune: succeeded, 1,500 of 1,500 steps, 1 restart", "back to step 871: 129 steps lost",
                  "100 % at 49:20", "steps done (%)"]),
        ("timeline", ["select", "faults", "power", "183 told, 183 actions", "1", "9"]),
    ],
)  # fmt: skip
def test_each_plot_labels_its_data_directly(key: str, expected: list[str]) -> None:
    shown = labels(parsed(written("an ordinary hour")), key)
    assert [text for text in expected if text not in shown] == []


@pytest.mark.parametrize("key", [k for k in PLOTS if k != "distribution"])
def test_the_failure_is_marked_on_every_plot_over_time(key: str) -> None:
    assert "▼ node a10g-1 fails, 30:00" in labels(parsed(written("an ordinary hour")), key)
    assert not [t for t in labels(parsed(written("no node failed")), key) if "fails" in t]


@pytest.mark.parametrize("key", [k for k in PLOTS if k != "distribution"])
def test_the_time_axis_has_a_unit(key: str) -> None:
    long, brief = (
        labels(parsed(written(c)), key)
        for c in ("an ordinary hour", "forty seconds, one service without requests")
    )
    assert "simulated minutes since the first request, warm-up shaded" in long
    assert "simulated seconds since the first request, warm-up shaded" in brief


def scaled(run: DemoRun, **factors: float) -> DemoRun:
    samples = [
        msgspec.structs.replace(
            s, **{k: getattr(s, k) * (f if s.seconds > 50 else 1.0) for k, f in factors.items()}
        )
        for s in run.samples
    ]
    return changed(run, samples=samples)


def busier(run: DemoRun) -> DemoRun:
    return changed(run, samples=[
        msgspec.structs.replace(s, load_per_second={n: r + (s.seconds > 50) for n, r in s.load_per_second.items()})
        for s in run.samples
    ])  # fmt: skip


def bigger(run: DemoRun) -> DemoRun:
    return changed(run, samples=[
        msgspec.structs.replace(s, replicas={n: {k: v + (s.seconds > 50) for k, v in b.items()} for n, b in s.replicas.items()})
        for s in run.samples
    ])  # fmt: skip


def slower(run: DemoRun) -> DemoRun:
    facts = run.services[CHAT]
    late = [
        t * (3.0 if a > 50 else 1.0) for t, a in zip(facts.ttft_seconds, facts.arrived_seconds, strict=True)
    ]
    return changed(run, services=run.services | {CHAT: msgspec.structs.replace(facts, ttft_seconds=late)})


def lagging(run: DemoRun) -> DemoRun:
    return changed(run, samples=[
        msgspec.structs.replace(s, jobs={n: (p, step // 2) for n, (p, step) in s.jobs.items()}) for s in run.samples
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda run: scaled(run, dollars_per_hour=1.5), {"cost"}),
        (lambda run: scaled(run, power_watts=0.7), {"power"}),
        (lambda run: scaled(run, uncapped_watts=1.2), {"power"}),
        (lambda run: scaled(run, granted_watts=0.9), {"power"}),
        (busier, {"load"}),
        (bigger, {"replicas"}),
        (slower, {"latency", "distribution"}),
        (lagging, {"jobs"}),
        (lambda run: changed(run, happenings=run.happenings[::2]), {"timeline"}),
        (lambda run: changed(run, node_failed_seconds=20.0), set(PLOTS) - {"distribution"}),
    ],
    ids=["dearer", "less power", "more uncapped", "smaller leases", "more load", "more replicas", "slower", "behind",
         "fewer decisions", "earlier failure"],
)  # fmt: skip
def test_each_plot_draws_its_own_data(change: Callable[[DemoRun], DemoRun], moved: set[str]) -> None:
    before, after = parsed(written("a hundred seconds")), parsed(page(change(RUNS["a hundred seconds"]())))
    differ = {k for k in PLOTS if drawing(before, k) != drawing(after, k)}
    assert differ == moved


def drawing(tree: ET.Element, key: str) -> bytes:
    return ET.tostring(plot(tree, key))


def test_the_same_run_gives_the_same_page() -> None:
    assert page(hour(total=700.0)) == page(hour(total=700.0))


def test_hostile_text_is_shown_as_text() -> None:
    tree = parsed(written("hostile names"))
    assert clean(HOSTILE) in "".join(tree.itertext())
    assert "alert" in " ".join(labels(tree, "load"))
    assert not any(ord(c) < 32 and c not in "\n\t" for c in written("hostile names"))
    assert "\u202e" not in written("hostile names")


def test_the_log_holds_every_decision_once_under_its_object() -> None:
    run = ordinary()
    tree = parsed(written("an ordinary hour"))
    told = 0
    for details in tree.iter("details"):
        lines = 0
        for row in details.iter("tr"):
            cells = [words_of(cell) for cell in row.findall("td")]
            if cells:
                again = re.search(r", (\d+) times", cells[0])
                lines += int(again.group(1)) if again else 1
        assert f", {lines} decision" in words_of(details.find("summary"))  # type: ignore[arg-type]
        told += lines
    assert told == len(run.happenings)


def test_a_long_log_is_cut_in_its_middle_and_says_so() -> None:
    log = [
        Happening(
            seconds=float(i), loop="place", kind="ModelService", subject=CHAT, code=f"Code{i % 7}", verdict="chosen",
            sentence=f"decision {i}", actions=1,
        )
        for i in range(5_000)
    ]  # fmt: skip
    text = page(bare(happenings=log))
    assert "4,840 lines left out here; the ledger has them" in text
    assert "decision 4999" in text
    assert len(text) < 400_000


def test_the_explanation_of_each_object_is_whole() -> None:
    tree = parsed(written("an ordinary hour"))
    shown = [words_of(e) for e in tree.iter("article")]
    for said in ordinary().explanations:
        card = next(c for c in shown if c.startswith(f"{said.kind} {said.name}"))
        for line in [said.headline, *said.sentences, *said.remedies]:
            assert line in card
        for line in said.alternatives:
            assert all(part in card for part in line.split(": ", 1))


def test_the_footer_tells_how_to_run_it_again() -> None:
    footer = " ".join(next(parsed(written("an ordinary hour")).iter("footer")).itertext())
    for fact in (
        "9f2c" * 16,
        "Seed 7",
        "Replication factor 1",
        "make demo TRACE=azure2023_conv.csv SEED=7",
        "Plimsoll 0.1",
    ):
        assert fact in footer


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a b;rm -rf.csv", "make demo TRACE='a b;rm -rf.csv' SEED=0"),
        ("generated from the published statistics", "make demo SEED=0"),
    ],
)
def test_the_command_is_safe_to_paste(name: str, command: str) -> None:
    assert reproduce(bare(trace_name=name)) == command


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    target = tmp_path / "out" / "deep" / "report.html"
    write_report(bare(), target)
    assert parsed(target.read_text(encoding="utf-8")).tag == "html"


def test_never_answered_requests_keep_the_curve_below_the_top() -> None:
    tree = parsed(written("every seventh request never answered"))
    attained = next(t for t in labels(tree, "distribution") if t.startswith(f"{CHAT}: "))
    assert float(re.search(r": ([\d.]+) %", attained).group(1)) < 100.0 * 6 / 7  # type: ignore[union-attr]


def test_requests_that_never_ended_count_as_missed() -> None:
    run = hour(total=90.0)
    facts = run.services[CHAT]
    cut = msgspec.structs.replace(facts, total=2 * facts.total)
    tree = parsed(page(changed(run, services=run.services | {CHAT: cut}, summary={})))
    attained = next(t for t in labels(tree, "distribution") if t.startswith(f"{CHAT}: "))
    assert float(re.search(r": ([\d.]+) %", attained).group(1)) <= 50.0  # type: ignore[union-attr]


def test_what_was_decided_before_the_first_sample_is_on_the_timeline() -> None:
    early = Happening(
        seconds=-90.0, loop="train", kind="TrainingJob", subject="research/pretrain", code="GangStarted",
        verdict="chosen", sentence="starts", actions=1,
    )  # fmt: skip
    run = hour(total=90.0)
    run = changed(run, happenings=[early], samples=[s for s in run.samples if s.seconds >= 0])
    assert "simulated seconds since the first request, warm-up shaded" in labels(
        parsed(page(run)), "timeline"
    )
    assert "simulated seconds since the first request" in labels(parsed(page(run)), "load")


def test_the_end_of_the_trace_is_marked_where_the_run_goes_on() -> None:
    run = hour(total=600.0)
    facts = {
        n: msgspec.structs.replace(f, arrived_seconds=[a / 3 for a in f.arrived_seconds])
        for n, f in run.services.items()
    }
    assert "last request" in labels(parsed(page(changed(run, services=facts))), "power")
    assert "last request" not in labels(parsed(written("an ordinary hour")), "power")


def test_an_hour_of_samples_is_thinned() -> None:
    points = sum(
        len(e.get("d", "")) for e in plot(parsed(written("an ordinary hour")), "power").iter(f"{SVG}path")
    )
    assert points < 100_000
