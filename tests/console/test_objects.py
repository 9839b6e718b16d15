"""`get`, `apply`, `delete`, `scale` against a real door on loopback; what they print, and how they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from console.main import app
from console.tables import age, value_at
from controller.resources.core import EVENT, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore, open_store
from runtime.authority import Authority, Identity, Role
from runtime.clock import WallClock
from tests.store.objects import node, pod, service
from tests.store.remote import Door

MINIMAL = Path(__file__).resolve().parents[2] / "examples" / "minimal"


class Desk:
    """A person's terminal: the command line with its certificates and address set."""

    def __init__(self, door: Door, endpoint: str, pki: Path, store: EmbeddedStore) -> None:
        self.door = door
        self.store = store
        self.env = {"PLIMSOLL_OPERATOR": endpoint, "PLIMSOLL_PKI": str(pki), "COLUMNS": "200"}

    def type(self, *words: str, stdin: str = "", **env: str) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin, env=self.env | env)

    def good(self, *words: str, stdin: str = "") -> str:
        told = self.type(*words, stdin=stdin)
        assert told.exit_code == 0, told.output
        return told.stdout

    def refused(self, *words: str, stdin: str = "", **env: str) -> str:
        """The sentence; it must be all that is said."""
        told = self.type(*words, stdin=stdin, **env)
        assert told.exit_code == 2, told.output
        assert told.stdout == ""
        assert "Traceback" not in told.stderr
        return " ".join(told.stderr.split())


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def desk(door: Door, tmp_path: Path) -> Desk:
    store = open_store(WallClock())
    pki = tmp_path / "pki"
    door.authority.write(pki / "authority")
    return Desk(door, door.serve(store), pki, store)


def test_a_manifest_is_created_then_unchanged_then_configured(desk: Desk, tmp_path: Path) -> None:
    assert desk.good("apply", "-f", str(MINIMAL)).split() == [
        "AcceleratorClass", "l4", "created", "ModelService", "default/chat", "created",
    ]  # fmt: skip
    assert desk.good("apply", "-f", str(MINIMAL)).split().count("unchanged") == 2
    changed = (MINIMAL / "service.yaml").read_text().replace("requestsPerSecond: 0.5", "requestsPerSecond: 5")
    answer = json.loads(desk.good("apply", "-f", "-", "-o", "json", stdin=changed))
    assert [each["result"] for each in answer["applied"]] == ["unchanged", "configured"]
    kept = desk.door.now(desk.store.get(MODEL_SERVICE, "chat", "default"))
    assert kept["spec"]["expectedLoad"]["requestsPerSecond"] == 5


def test_a_fault_in_a_manifest_is_told_with_file_and_line_and_nothing_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text((MINIMAL / "service.yaml").read_text().replace("ttftSeconds", "ttftSecond"))
    told = desk.refused("apply", "-f", str(bad))
    assert "bad.yaml:" in told
    assert "did you mean spec.objectives[0].ttftSeconds?" in told
    assert desk.door.now(desk.store.list(MODEL_SERVICE)).items == ()
    assert "nowhere.yaml:1: cannot be read" in desk.refused("apply", "-f", str(tmp_path / "nowhere.yaml"))


def test_what_the_store_refuses_does_not_hide_the_rest(desk: Desk, tmp_path: Path) -> None:
    stray = "\n---\n" + yaml.safe_dump(
        service("stray") | {"metadata": {"name": "stray", "namespace": "nowhere"}}
    )
    both = (MINIMAL / "service.yaml").read_text() + stray
    told = desk.type("apply", "-f", "-", stdin=both)
    assert told.exit_code == 2
    assert "ModelService default/chat created" in told.stdout
    assert 'ModelService nowhere/stray: namespaces "nowhere" not found' in " ".join(told.stderr.split())


def test_taking_over_anothers_field_wants_force(desk: Desk, tmp_path: Path) -> None:
    desk.door.now(desk.store.apply(MODEL_SERVICE, service(mode="Off"), field_manager="argo"))
    wish = yaml.safe_dump(service(mode="Auto"))
    assert 'conflict with "argo"' in desk.refused("apply", "-f", "-", stdin=wish)
    assert "configured" in desk.good("apply", "-f", "-", "--force", stdin=wish)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["get", "msvc"], id="short name"),
        pytest.param(["get", "ModelServices"], id="plural, in any case"),
        pytest.param(["get", "modelservice", "default/chat"], id="namespace/name"),
        pytest.param(["get", "msvc/default/chat"], id="as explain is asked"),
        pytest.param(["get", "msvc", "chat", "-n", "default", "-o", "wide"], id="namespace as an option"),
    ],
)
def test_a_table_has_the_columns_of_the_kind(desk: Desk, words: list[str]) -> None:
    desk.good("apply", "-f", str(MINIMAL))
    head, row = desk.good(*words).strip().splitlines()
    assert head.split()[:6] == ["namespace", "name", "phase", "ready", "gpus", "$/h"]
    assert row.split()[:2] == ["default", "chat"]
    assert ("mode" in head) == ("wide" in words)


def test_json_and_yaml_are_the_object_itself(desk: Desk) -> None:
    desk.good("apply", "-f", str(MINIMAL))
    kept = desk.door.now(desk.store.get(MODEL_SERVICE, "chat", "default"))
    assert json.loads(desk.good("get", "msvc", "chat", "-o", "json")) == kept
    assert yaml.safe_load(desk.good("get", "msvc", "chat", "-o", "yaml")) == kept
    listed = json.loads(desk.good("get", "msvc", "-o", "json"))
    assert (listed["kind"], listed["items"]) == ("List", [kept])


def test_pods_and_nodes_are_shown_too_and_chosen_by_labels(desk: Desk) -> None:
    for made in (pod("a", labels={"app": "x"}), pod("b")):
        desk.door.now(desk.store.create(POD, made, field_manager="t"))
    told = desk.good("get", "po", "-l", "app=x")
    assert "Pending" in told
    assert [line.split()[1] for line in told.splitlines()[1:]] == ["a"]
    assert "There are no nodes." in desk.good("get", "nodes")
    assert "There are no pods in namespace kube-system." in desk.good("get", "pods", "-n", "kube-system")


def test_events_are_told_in_order_of_time_by_what_they_are_about(desk: Desk) -> None:
    for name, second in (("late", 30), ("early", 10)):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.1", "namespace": "default"},
            "involvedObject": {"kind": "ModelService", "name": "chat"},
            "type": "Warning",
            "reason": "NoInventory",
            "message": f"{name}: 1 GPU wanted",
            "lastTimestamp": f"2026-11-21T00:00:{second}Z",
        }
        desk.door.now(desk.store.create(EVENT, event, field_manager="t"))
    head, first, second_ = desk.good("get", "ev").strip().splitlines()
    assert head.split() == ["namespace", "last", "type", "reason", "object", "message"]
    assert first.rstrip().endswith("early: 1 GPU wanted")
    assert second_.rstrip().endswith("late: 1 GPU wanted")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param(["get", "msv"], "There is no kind 'msv'; did you mean msvc? choose one of", id="kind"),
        pytest.param(["get", "msvc", "nix"], 'modelservices.plimsoll.dev "nix" not found', id="name"),
        pytest.param(["get", "nodes", "default/n1"], "belongs to the cluster", id="namespace of a node"),
        pytest.param(
            ["get", "msvc", "a/b", "-n", "c"], "names namespace 'a', and --namespace says 'c'", id="two"
        ),
        pytest.param(["get", "msvc", "-o", "xml"], "There is no output 'xml'", id="output"),
        pytest.param(["get", "msvc", "-l", "a=b=c"], "unable to parse", id="selector"),
        pytest.param(["get", "msvc", "--operator", "here"], "write HOST:PORT", id="address"),
        pytest.param(["get", "msvc", "-w", "-o", "json"], "--watch draws a table", id="watch as JSON"),
        pytest.param(["delete", "msvc", "nix"], "not found", id="deleting what is not there"),
        pytest.param(
            ["scale", "tjob", "x", "--replicas", "1"], "could not find the requested", id="no scale"
        ),
    ],
)
def test_a_question_that_cannot_be_answered_gets_a_sentence(desk: Desk, words: list[str], why: str) -> None:
    assert why in desk.refused(*words)


def test_nobody_at_the_address_says_what_to_do(desk: Desk) -> None:
    told = desk.refused("get", "msvc", PLIMSOLL_OPERATOR="127.0.0.1:1")
    assert (
        "No operator answers at 127.0.0.1:1: is it running there? Start one with `plimsoll operator`" in told
    )


def test_without_a_certificate_the_sentence_says_how_to_get_one(desk: Desk, tmp_path: Path) -> None:
    told = desk.refused("get", "msvc", PLIMSOLL_PKI=str(tmp_path / "none"))
    assert "plimsoll pki issue admin admin --dir" in told


def test_anothers_certificate_is_refused_by_the_operator(desk: Desk, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    foreign = Authority.create(WallClock())
    foreign.issue(Identity(Role.ADMIN, "admin")).write(stranger / "admin" / "admin")
    assert "No operator answers" in desk.refused("get", "msvc", PLIMSOLL_PKI=str(stranger))


def test_scaling_sets_the_users_wish_and_says_what_it_means(desk: Desk) -> None:
    desk.good("apply", "-f", str(MINIMAL))
    told = desk.good("scale", "msvc", "default/chat", "--replicas", "3")
    assert "ModelService default/chat: 0 → 3 units" in told
    assert "In mode Auto this is a floor" in told
    assert json.loads(desk.good("scale", "msvc", "chat", "--replicas", "4", "-o", "json")) == {
        "object": "ModelService default/chat", "before": 3, "replicas": 4, "mode": "Auto",
    }  # fmt: skip
    assert desk.type("scale", "msvc", "chat", "--replicas", "-1").exit_code == 2


def test_deleting_takes_the_object_away(desk: Desk) -> None:
    desk.good("apply", "-f", str(MINIMAL))
    assert desk.good("delete", "msvc", "default/chat").strip() == "ModelService default/chat deleted"
    assert "There are no modelservices." in desk.good("get", "msvc")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".metadata.name", "n1"),
        (".status.conditions[Ready].status", "True"),
        (".status.allocatable.[nvidia.com/gpu]", "8"),
        (".status.conditions[Gone].status", None),
        (".metadata.name.more", None),
        (".nowhere.at.all", None),
    ],
)
def test_paths_of_columns(path: str, value: object) -> None:
    assert value_at(node("n1"), path) == value


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (200_000, "2d")]
)
def test_ages_are_short(seconds: int, text: str) -> None:
    assert age("2026-01-01T00:00:00Z", 1_767_225_600.0 + seconds) == text
    assert age("yesterday", 0.0) == "?"
