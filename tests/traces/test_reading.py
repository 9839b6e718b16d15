"""Trace files: what is read of each published format, and what becomes of lines that are none."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.traces import reading
from simulator.traces.reading import read
from simulator.traces.requests import FAULTS_KEPT, Tally, TraceError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
SERVEGEN = "timestamp_s,client_id,input_tokens,output_tokens,reason_tokens\n"


def file_of(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text)
    return path


SOUND = [
    pytest.param(
        "azure",
        AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        [(2, 0.0, 374, 44), (3, 4.314579, 396, 109)],
        id="Azure 2023: dates with 100 ns",
    ),
    pytest.param(
        "azure",
        AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n",
        [(2, 0.0, 2162, 5), (3, 0.99007, 2399, 6)],
        id="Azure 2024: dates with a zone",
    ),
    pytest.param(
        "mooncake",
        '{"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]}\n'
        '{"timestamp": 3500, "input_length": 512, "output_length": 1, "hash_ids": [7]}\n',
        [(1, 0.0, 600, 5), (2, 3.0, 512, 1)],
        id="Mooncake: milliseconds",
    ),
    pytest.param(
        "burstgpt",
        BURST + "5,a,1.5,ChatGPT,472,18,490,Conversation log\n45,b,1.0,GPT-4,10,20,30,API log\n",
        [(2, 0.0, 472, 18), (3, 40.0, 10, 20)],
        id="BurstGPT: with sessions",
    ),
    pytest.param(
        "burstgpt",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n",
        [(2, 0.0, 472, 18)],
        id="BurstGPT: the first files, without sessions",
    ),
    pytest.param(
        "servegen",
        SERVEGEN + "0.5,3,46,59,\n1.5,,10,5,200\n",
        [(2, 0.0, 46, 59), (3, 1.0, 10, 205)],
        id="ServeGen: thoughts are generated too",
    ),
]


@pytest.mark.parametrize(("form", "text", "expected"), SOUND)
def test_each_format_is_recognised_and_read(
    form: str, text: str, expected: list[tuple[int, float, int, int]], tmp_path: Path
) -> None:
    path, tally = file_of(tmp_path, text), Tally()
    assert reading.recognise(path) == form
    found = [
        (r.line, round(r.arrived_seconds, 6), r.input_tokens, r.output_tokens)
        for r in read(path, tally=tally)
    ]
    assert found == expected
    assert (tally.requests, tally.malformed, tally.out_of_order) == (len(expected), 0, 0)


def test_what_else_a_format_tells_is_kept(tmp_path: Path) -> None:
    burst = next(read(file_of(tmp_path, BURST + "5,a,1.5,ChatGPT,472,18,490,Conversation log\n")))
    assert (burst.session, burst.model) == ("a", "ChatGPT")
    line = '{"timestamp": 0, "input_length": 1025, "output_length": 5, "hash_ids": [7, 8, 9]}\n'
    mooncake = next(read(file_of(tmp_path, line)))
    assert (mooncake.block_hashes, mooncake.block_tokens) == ((7, 8, 9), 512)


MALFORMED = [
    pytest.param(AZURE, "2023-11-16 18:15:46,374", "2 cells, needs 3", id="a cell is missing"),
    pytest.param(AZURE, "yesterday,1,1", "TIMESTAMP 'yesterday' is no date and time", id="no date"),
    pytest.param(AZURE, "nan,5,5", "TIMESTAMP is nan, must be finite", id="a time that is no number"),
    pytest.param(AZURE, "1e999,5,5", "TIMESTAMP is 1e999, must be finite", id="a time without end"),
    pytest.param(AZURE, "7,many,1", "ContextTokens 'many' is no whole number", id="words for tokens"),
    pytest.param(AZURE, "7,5,0", "GeneratedTokens is 0, must lie between 1", id="no answer"),
    pytest.param(
        BURST, "7,a,1,ChatGPT,5,0,5,API log", "the request failed where it was recorded", id="a failed one"
    ),
    pytest.param(BURST, "7,a,1,ChatGPT,5", "5 cells, needs 6", id="a short row"),
    pytest.param(SERVEGEN, "7,,5,5,-3", "reason_tokens is -3", id="negative thoughts"),
    pytest.param(
        "", '{"timestamp": 0, "input_length": 5}', "missing required field `output_length`", id="half a line"
    ),
    pytest.param("", '{"timestamp": 0, "input_length"', "no request: ", id="a line that was cut"),
    pytest.param(
        "",
        '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}',
        "2 hash_ids for 512 tokens, at most 1",
        id="more blocks than tokens",
    ),
]
GOOD = {
    AZURE: "8,1,1\n9,2,2\n",
    BURST: "8,a,1,m,1,1,2,x\n9,a,1,m,2,2,4,x\n",
    SERVEGEN: "8,,1,1,\n9,,2,2,\n",
    "": '{"timestamp": 8000, "input_length": 1, "output_length": 1}\n'
    '{"timestamp": 9000, "input_length": 2, "output_length": 2}\n',
}


@pytest.mark.parametrize(("header", "line", "why"), MALFORMED)
def test_a_malformed_line_is_counted_with_its_number_and_the_rest_is_read(
    header: str, line: str, why: str, tmp_path: Path
) -> None:
    first, second = GOOD[header].splitlines()
    path = file_of(tmp_path, f"{header}{first}\n{line}\n\n{second}\n")
    tally = Tally()
    assert [(r.input_tokens, r.arrived_seconds) for r in read(path, tally=tally)] == [(1, 0.0), (2, 1.0)]
    assert (tally.lines, tally.malformed) == (3, 1)
    assert tally.faults[0].line == (3 if header else 2)
    assert why in tally.faults[0].why


@pytest.mark.parametrize(("header", "line", "why"), MALFORMED)
def test_a_strict_reading_stops_at_it_with_file_line_and_reason(
    header: str, line: str, why: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, f"{header}{GOOD[header]}{line}\n")
    with pytest.raises(TraceError) as caught:
        list(read(path, strict=True))
    assert str(caught.value).startswith(f"{path}:{4 if header else 3}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "form", "sentence"),
    [
        pytest.param("", "", "line 1 is no header of a known trace", id="an empty file"),
        pytest.param("a,b\n1,2\n", "", "Known are azure, burstgpt, servegen, mooncake", id="other columns"),
        pytest.param(AZURE, "", "no request in it (0 malformed lines)", id="a header alone"),
        pytest.param(
            AZURE + "x,y,z\n", "", "no request in it (1 malformed lines)", id="malformed lines alone"
        ),
        pytest.param(
            AZURE + "1,1,1\n", "parquet", "there is no trace format 'parquet'", id="an unknown format"
        ),
        pytest.param(
            AZURE + "1,1,1\n", "burstgpt", "line 1 has no column 'Timestamp'", id="another format than said"
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_sentence(
    text: str, form: str, sentence: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        list(read(path, form=form))
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: .*Give the path of a readable file"):
        list(read(tmp_path / "none.csv"))


def test_a_packed_file_is_unpacked_and_one_that_was_cut_says_where(tmp_path: Path) -> None:
    data = gzip.compress((AZURE + "".join(f"{n},{n + 1},1\n" for n in range(5_000))).encode())
    whole, cut = tmp_path / "whole.csv.gz", tmp_path / "cut.csv.gz"
    whole.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    assert sum(1 for _ in read(whole)) == 5_000
    with pytest.raises(TraceError, match=r"cut\.csv\.gz: cannot be read beyond line \d+"):
        list(read(cut))


def test_a_packed_file_that_was_damaged_says_where(tmp_path: Path) -> None:
    data = bytearray(
        gzip.compress((AZURE + "".join(f"{n},{n * n + 1},{n % 97 + 1}\n" for n in range(9_000))).encode())
    )
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(bytes(data))
    with pytest.raises(TraceError, match=r"bad\.csv\.gz"):
        list(read(path, strict=True))


def test_a_trace_four_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (6_000, 24_000):
        path = tmp_path / f"{count}.csv"
        path.write_text(AZURE + "".join(f"{n},{n % 900 + 1},1\n" for n in range(count)))
        tracemalloc.start()
        try:
            assert sum(1 for _ in read(path)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


PRIORITIES = [
    pytest.param("TIMESTAMP,ContextTokens,GeneratedTokens,priority\n1,5,5,2\n2,5,5,\n3,5,5\n", id="Azure"),
    pytest.param(
        "Timestamp,Model,Request tokens,Response tokens,priority\n1,m,5,5,2\n2,m,5,5,\n3,m,5,5\n",
        id="BurstGPT",
    ),
    pytest.param("timestamp_s,input_tokens,output_tokens,priority\n1,5,5,2\n2,5,5,\n3,5,5\n", id="ServeGen"),
    pytest.param(
        '{"timestamp": 0, "input_length": 5, "output_length": 5, "priority": 2}\n'
        '{"timestamp": 1, "input_length": 5, "output_length": 5, "priority": 0}\n'
        '{"timestamp": 2, "input_length": 5, "output_length": 5}\n',
        id="Mooncake",
    ),
]


@pytest.mark.parametrize("text", PRIORITIES)
def test_a_trace_may_have_priorities(text: str, tmp_path: Path) -> None:
    assert [request.priority for request in read(file_of(tmp_path, text))] == [2, 0, 0]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("high", "priority 'high' is no whole number"),
        ("1.5", "no whole number"),
        ("-4000", "must lie between"),
    ],
)
def test_a_priority_that_is_none_is_malformed(cell: str, why: str, tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens,priority\n1,5,5,-2\n2,5,5," + cell + "\n"
    tally = Tally()
    assert [request.priority for request in read(file_of(tmp_path, text), tally=tally)] == [-2]
    assert why in tally.faults[0].why


def test_a_line_without_end_is_malformed_and_never_held_whole(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"{AZURE}1,1,1\n{'9' * 3_000_000}\n2,2,2\n")
    tally = Tally()
    assert [r.line for r in read(path, tally=tally)] == [2, 4]
    assert [fault.line for fault in tally.faults] == [3]


def test_late_lines_are_put_in_their_place(tmp_path: Path) -> None:
    tally = Tally()
    found = list(read(file_of(tmp_path, AZURE + "10,1,1\n5,2,2\n7,3,3\n"), tally=tally))
    assert [(r.input_tokens, r.arrived_seconds) for r in found] == [(2, 0.0), (3, 2.0), (1, 5.0)]
    assert tally.out_of_order == 2


def test_a_line_too_late_to_be_placed_is_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REORDER", 2)
    path, tally = file_of(tmp_path, AZURE + "1,1,1\n2,2,2\n3,3,3\n4,4,4\n0.5,5,5\n5,6,6\n"), Tally()
    assert [r.input_tokens for r in read(path, tally=tally)] == [1, 2, 3, 4, 6]
    assert tally.faults[0].line == 6
    assert "arrives 1.500 s before a request 2 lines earlier" in tally.faults[0].why


def test_faults_are_all_counted_and_the_first_are_kept(tmp_path: Path) -> None:
    path, tally = file_of(tmp_path, AZURE + "1,1,1\n" + "x,1,1\n" * 100), Tally()
    list(read(path, tally=tally))
    assert (tally.malformed, len(tally.faults)) == (100, FAULTS_KEPT)


def test_a_stream_is_read_as_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REORDER", 8)
    path, tally = file_of(tmp_path, AZURE + "".join(f"{n},1,1\n" for n in range(1_000))), Tally()
    stream = read(path, tally=tally)
    assert [r.line for r in itertools.islice(stream, 3)] == [2, 3, 4]
    assert tally.requests == 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(1, 10_000), st.integers(1, 10_000)), min_size=1, max_size=60
    )
)
def test_whatever_the_order_nothing_is_lost_and_time_never_runs_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, int]]
) -> None:
    text = AZURE + "".join(f"{at!r},{given},{wanted}\n" for at, given, wanted in rows)
    path = file_of(tmp_path_factory.mktemp("trace"), text)
    found = list(read(path))
    assert sorted((r.input_tokens, r.output_tokens) for r in found) == sorted(row[1:] for row in rows)
    assert found[0].arrived_seconds == 0.0
    assert all(a.arrived_seconds <= b.arrived_seconds for a, b in itertools.pairwise(found))
