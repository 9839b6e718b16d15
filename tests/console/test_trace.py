"""Traces: what is read, what is refused with which sentence, what is generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from console.demo import trace as tr

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_a_line_of_the_azure_form_keeps_its_hundred_nanoseconds() -> None:
    text = HEADER + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    trace = tr.parse_trace(text.encode(), "x.csv")
    assert [(r.line, r.input_tokens, r.output_tokens) for r in trace.requests] == [
        (2, 374, 44),
        (3, 396, 109),
    ]
    assert trace.requests[1].arrived_seconds == pytest.approx(4.314579, abs=1e-6)
    assert trace.malformed_lines == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("2023-11-16 18:15:46.6,374", "2 cells, needs 3", id="a cell is missing"),
        pytest.param("yesterday,1,1", "TIMESTAMP 'yesterday' is no date and time", id="no date"),
        pytest.param(
            "2023-11-16 18:15:46.6,many,1", "ContextTokens 'many' is no whole number", id="no number"
        ),
        pytest.param("2023-11-16 18:15:46.6,-4,1", "ContextTokens is -4, must lie", id="negative tokens"),
        pytest.param("2023-11-16 18:15:46.6,5,0", "GeneratedTokens is 0, must lie", id="no answer"),
        pytest.param("2023-11-16 18:15:46.6,5,99999999", "GeneratedTokens is 99999999", id="absurd answer"),
        pytest.param("nan,5,5", "TIMESTAMP is nan, must be finite", id="not a time"),
    ],
)
def test_a_malformed_line_is_counted_with_its_number_and_the_rest_is_read(line: str, why: str) -> None:
    trace = tr.parse_trace(
        f"{HEADER}2023-11-16 18:15:46.1,1,1\n{line}\n2023-11-16 18:15:47.1,2,2\n".encode(), "x.csv"
    )
    assert len(trace.requests) == 2
    assert trace.data_lines == 3
    assert trace.malformed[0].line == 3
    assert why in trace.malformed[0].why


def test_a_trace_out_of_order_is_sorted_and_says_so() -> None:
    trace = tr.parse_trace(f"{HEADER}10.0,1,1\n5.0,2,2\n7.0,3,3\n".encode(), "x.csv")
    assert [r.input_tokens for r in trace.requests] == [2, 3, 1]
    assert [r.arrived_seconds for r in trace.requests] == [0.0, 2.0, 5.0]
    assert trace.out_of_order == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"", "line 1 has no column 'TIMESTAMP'", id="an empty file"),
        pytest.param(HEADER.encode(), "no request in it", id="a header alone"),
        pytest.param(
            b"a,b,c\n1,2,3\n",
            "the header must be TIMESTAMP,ContextTokens,GeneratedTokens",
            id="other columns",
        ),
        pytest.param(HEADER.encode() + b"x,y,z\n", "(1 malformed lines)", id="nothing but malformed lines"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(tr.TraceError) as caught:
        tr.parse_trace(data, "x.csv")
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(tr.TraceError, match="Give the path of a readable CSV file"):
        tr.read_trace(tmp_path / "none.csv")


def test_the_generated_trace_has_the_published_statistics() -> None:
    trace = tr.parse_trace(tr.generate_trace(seed=7), "generated")
    arrivals = np.array([r.arrived_seconds for r in trace.requests])
    gaps = np.diff(arrivals)
    inputs = np.array([r.input_tokens for r in trace.requests])
    outputs = np.array([r.output_tokens for r in trace.requests])
    assert len(arrivals) / 3_600.0 == pytest.approx(5.53, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1.09, rel=0.04)
    assert inputs.mean() == pytest.approx(1_155, rel=0.03)
    assert np.percentile(inputs, 99) == pytest.approx(4_142, rel=0.08)
    assert outputs.mean() == pytest.approx(211, rel=0.03)
    assert np.percentile(outputs, 99) == pytest.approx(601, rel=0.08)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert tr.generate_trace(3, 60.0) == tr.generate_trace(3, 60.0)
    assert tr.generate_trace(3, 60.0) != tr.generate_trace(4, 60.0)


def test_lines_are_shared_out_by_number_and_the_late_service_gets_none_early() -> None:
    trace = tr.parse_trace(tr.generate_trace(seed=1, seconds=1_200.0), "generated")
    names = tr.share_out(trace.requests, ("a", "b", "c"), "c", 600.0)
    early = [n for n, r in zip(names, trace.requests, strict=True) if r.arrived_seconds < 600.0]
    late = [n for n, r in zip(names, trace.requests, strict=True) if r.arrived_seconds >= 600.0]
    assert "c" not in early
    for name in ("a", "b", "c"):
        assert late.count(name) / len(late) == pytest.approx(1 / 3, abs=0.05)
