"""openb node and pod lists: units, optional columns, and what is no node or pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.traces.openb import OpenbNode, OpenbPod, read_nodes, read_pods
from simulator.traces.requests import Tally, TraceError

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"


def file_of(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


def test_nodes_come_in_millicores_and_bytes(tmp_path: Path) -> None:
    path = file_of(tmp_path, NODES + "n0,64000,262144,2,P100\nn1,32000,1,0,\n")
    assert list(read_nodes(path)) == [
        OpenbNode("n0", 64_000, 262_144 << 20, 2, "P100"),
        OpenbNode("n1", 32_000, 1 << 20, 0, ""),
    ]


def test_pods_have_their_share_products_and_times(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        PODS
        + "p0,6000,12288,1,460,T4|P100,LS,Running,427061,12902960,427061\np1,1000,1,8,1000,,BE,Pending,5,,\n",
    )
    assert list(read_pods(path)) == [
        OpenbPod("p0", 6_000, 12_288 << 20, 1, 460, ("T4", "P100"), "LS", 427_061.0, 427_061.0, 12_902_960.0),
        OpenbPod("p1", 1_000, 1 << 20, 8, 1_000, (), "BE", 5.0, None, None),
    ]


def test_a_list_without_products_and_times_is_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np0,1,1,0,0\n")
    assert list(read_pods(path)) == [OpenbPod("p0", 1, 1 << 20, 0, 0)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("p9,1,1,1", "4 cells, none for gpu_milli", id="a short row"),
        pytest.param(",1,1,1,500,,,,,,", "name is empty", id="no name"),
        pytest.param("p9,x,1,1,500,,,,,,", "cpu_milli 'x' is no whole number", id="words for a number"),
        pytest.param("p9,-1,1,1,500,,,,,,", "cpu_milli is -1", id="negative"),
        pytest.param("p9,1,1,1,1500,,,,,,", "gpu_milli is 1500", id="more than a GPU of a GPU"),
        pytest.param("p9,1,1,1,0,,,,,,", "gpu_milli is 0", id="nothing of a GPU"),
        pytest.param("p9,1,1,2,500,,,,,,", "only a single GPU may be shared", id="half of two"),
        pytest.param("p9,1,1,1,500,,,,soon,,", "creation_time 'soon' is no time", id="no time"),
        pytest.param("p9,1,1,1,500,,,,inf,,", "creation_time 'inf' is no time", id="a time without end"),
    ],
)
def test_a_malformed_pod_is_counted_and_a_strict_reading_stops(line: str, why: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, f"{PODS}p0,1,1,1,500,,,,,,\n{line}\np1,1,1,0,0,,,,,,\n")
    tally = Tally()
    assert [pod.name for pod in read_pods(path, tally=tally)] == ["p0", "p1"]
    assert tally.faults[0].line == 3
    assert why in tally.faults[0].why
    with pytest.raises(TraceError, match=r"list\.csv:3: "):
        list(read_pods(path, strict=True))


def test_gpus_of_no_product_are_refused_and_an_empty_list_too(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="2 GPUs of no model"):
        list(read_nodes(file_of(tmp_path, NODES + "n0,1,1,2,\n"), strict=True))
    with pytest.raises(TraceError, match=r"nothing in it .*: give a file with lines"):
        list(read_nodes(file_of(tmp_path, NODES)))
    with pytest.raises(TraceError, match="no column 'sn'"):
        list(read_nodes(file_of(tmp_path, PODS)))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("n0,1,1,2,T4", "sn 'n0' is the name of an earlier node", id="a name twice"),
        pytest.param("n1,1,1,1000000,T4", "gpu is 1000000, must lie between 0 and 1024", id="a million GPUs"),
    ],
)
def test_a_malformed_node_is_told_with_its_line(line: str, why: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, f"{NODES}n0,1,1,1,T4\n{line}\n")
    with pytest.raises(TraceError, match=rf"list\.csv:3: {why}"):
        list(read_nodes(path, strict=True))
    tally = Tally()
    assert [node.name for node in read_nodes(path, tally=tally)] == ["n0"]
    assert tally.malformed == 1


def test_spaces_around_products_are_none_of_their_names(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"{PODS}p0,1,1,1,500, T4 | A10 ,,,,,\n")
    assert [pod.products for pod in read_pods(path)] == [("T4", "A10")]
