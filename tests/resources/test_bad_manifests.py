"""Bad input: the store refuses it in the API server's words, the loader says in which line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import manifests
from controller.resources.documents import MOST_BYTES
from controller.resources.kinds import BY_KIND
from controller.resources.manifests import ManifestError
from controller.store.embedded import open_store
from controller.store.errors import BadRequest, Invalid
from runtime.clock import VirtualClock
from tests.resources.bad import BAD, Bad, domain, job, product, service
from tests.store.following import now

IDS = [bad.story for bad in BAD]


@pytest.fixture(scope="module")
def store() -> Any:
    return open_store(VirtualClock(1_790_000_000.0))


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_the_store_refuses_it_in_the_servers_words(store: Any, bad: Bad) -> None:
    resource = BY_KIND[bad.obj["kind"]].resource
    with pytest.raises(Invalid) as caught:
        now(store.create(resource, bad.obj, field_manager="kubectl"))
    assert caught.value.message == bad.words


def line_of(text: str, field: str) -> int:
    """The line on which a field stands in block-style YAML, found by walking it with the parser's marks."""
    node: Any = yaml.compose(text)
    line = 1
    for part in field.replace("[", ".[").split(".") if field else ():
        if part.startswith("["):
            node = node.value[int(part[1:-1])]
            line = node.start_mark.line + 1
            continue
        pairs = {key.value: (key, value) for key, value in node.value}
        line, node = pairs[part][0].start_mark.line + 1, pairs[part][1]
    return line


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_the_loader_says_the_same_with_its_line(bad: Bad) -> None:
    text = yaml.safe_dump(bad.obj, sort_keys=False)
    found, problems = manifests.parse(text, "shop.yaml")
    assert found == []
    spoken = bad.words.split(" is invalid: ", 1)[1].removeprefix("[").removesuffix("]")
    sentences = [problem.sentence.split(": ", 1)[1] for problem in problems]
    assert ", ".join(sentences) == spoken
    assert problems[0].line == line_of(text, bad.field)
    assert str(problems[0]).startswith(f"shop.yaml:{problems[0].line}: {bad.obj['kind']} ")
    assert len(str(problems[0])) < 1_000


def test_the_table_is_as_long_as_promised() -> None:
    assert len(BAD) >= 40
    assert {bad.obj["kind"] for bad in BAD} == {
        "ModelService",
        "TrainingJob",
        "AcceleratorClass",
        "PowerDomain",
    }
    assert len({bad.words for bad in BAD}) == len(BAD)


@pytest.mark.parametrize("sound", [service(), job(), product(), domain()], ids=lambda obj: obj["kind"])
def test_what_the_table_is_laid_over_is_sound(store: Any, sound: Any) -> None:
    resource = BY_KIND[sound["kind"]].resource
    now(store.create(resource, sound, field_manager="kubectl", dry_run=True))
    assert manifests.parse(json.dumps(sound))[1] == []


ACROSS = [
    (service({"minReplicas": 5, "maxReplicas": 2}), "spec.minReplicas: minReplicas must not be greater than maxReplicas"),
    (job(nodes={"min": 4, "max": 2}), "spec.nodes.min: min must not be greater than max"),
    (job(microBatch=128), "spec.microBatch: microBatch must not be greater than globalBatch"),
    (product(minWatts=70), "spec.minWatts: minWatts must not be greater than safeWatts"),
    (product(safeWatts=99), "spec.safeWatts: safeWatts must not be greater than maxWatts"),
    (product(tdpWatts=99), "spec.tdpWatts: tdpWatts must not be greater than maxWatts"),
    (domain(parent="row-a"), "spec.parent: a power domain cannot be its own parent"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "words"), ACROSS, ids=[words for _, words in ACROSS])
def test_rules_across_fields_are_said_by_the_loader_since_the_store_runs_no_cel(
    store: Any, obj: Any, words: str
) -> None:
    assert not store.capabilities.runs_cel
    _, problems = manifests.parse(json.dumps(obj))
    assert [problem.sentence.split(": ", 1)[1] for problem in problems] == [words]


UNKNOWN = [
    (service({"repilcas": 2}), "spec.repilcas", "did you mean spec.replicas?"),
    (service({"objectives": [{"ttftSeconds": 1, "tpotSeconds": 1, "percentil": 0.9}]}),
     "spec.objectives[0].percentil", "did you mean spec.objectives[0].percentile?"),
    (service({"zebra": 1}), "spec.zebra", "known here are accelerators, drainSeconds"),
    (service() | {"specs": {}}, "specs", "did you mean spec?"),
    (job(checkpoint={"interval": 5}), "spec.checkpoint.interval", "did you mean spec.checkpoint.intervalSeconds?"),
    (service({"model": {"name": "x", "m" * 1_000: 1}}), "spec.model.mmm", "... (1011 characters) is no field"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "path", "hint"), UNKNOWN, ids=[path for _, path, _ in UNKNOWN])
def test_a_field_that_does_not_exist_is_named_with_the_nearest_that_does(
    store: Any, obj: Any, path: str, hint: str
) -> None:
    _, problems = manifests.parse(json.dumps(obj))
    assert path in problems[0].sentence
    assert hint in problems[0].sentence
    assert len(str(problems[0])) < 1_000
    with pytest.raises(BadRequest, match="strict decoding error: unknown field"):
        now(store.create(BY_KIND[obj["kind"]].resource, obj, field_manager="kubectl"))


def test_configuration_of_a_policy_is_free_here() -> None:
    text = json.dumps(service({"policies": {"scale": {"name": "hpa", "config": {"anything": [1, {}]}}}}))
    assert manifests.parse(text)[1] == []


HEAD = "apiVersion: plimsoll.dev/v1alpha1\nkind: ModelService\nmetadata:\n  name: chat\nspec:\n  model:\n    name: x\n"

TEXTS = [
    ("a tab", f"{HEAD}\tmode: Off\n", 8, "found a tab character that violates indentation"),
    ("a colon too much", "kind: Model: Service\n", 1, "mapping values are not allowed"),
    ("a brace left open", "apiVersion: {a: b\nkind: x\n", 2, "check the indentation"),
    ("a control character", f"{HEAD}  image: \x00\n", 1, "this is no YAML: "),
    ("a key given twice", f"{HEAD}  mode: Off\n  mode: Auto\n", 9, "spec.mode is given twice; first in line 8"),
    ("a list as a key", "? [a]\n: b\n", 1, "a key must be a word"),
    ("a foreign tag", f"{HEAD}  mode: !python/none x\n", 8, "the tag !python/none is not known"),
    ("a text", "hello\n", 1, "an object with apiVersion, kind and metadata is expected here, not one of type string"),
    ("a list of objects", "- a\n- b\n", 1, "not one of type array"),
    ("nothing", "", 1, "holds no object"),
    ("only a comment", "# later\n---\n", 1, "holds no object"),
    ("no kind", "apiVersion: v1\nmetadata: {name: a}\n", 1, "an object needs the fields apiVersion and kind"),
    ("a misspelt kind", HEAD.replace("ModelService", "ModelServce"), 2, "did you mean ModelService?"),
    ("a foreign kind", HEAD.replace("ModelService", "Deployment"), 2,
     "there is no kind 'Deployment' here; ours are AcceleratorClass, AcceleratorNode, ModelService"),
    ("a kind of 1 MB", HEAD.replace("ModelService", "K" * 1_000_000), 2, "... (1000000 characters)'"),
    ("another version", HEAD.replace("v1alpha1", "v1"), 1,
     "ModelService is not served as 'plimsoll.dev/v1'; write apiVersion: plimsoll.dev/v1alpha1"),
    ("no metadata", "apiVersion: v1\nkind: Pod\n", 1, "Pod has no metadata; give it at least metadata.name"),
    ("no name", HEAD.replace("  name: chat", "  labels: {}"), 3, "metadata.name: Required value"),
    ("a name of 1 MB", HEAD.replace("chat", "c" * 1_000_000), 4, "metadata.name: Invalid value"),
    ("a label that is a number", HEAD.replace("  name: chat", "  name: chat\n  labels:\n    a: 5"), 6,
     'metadata.labels.a in body must be of type string'),
    ("too deep", "a: " + "[" * 500 + "]" * 500, 1, "nested deeper than 100"),
    ("a megabyte too many", "#" * (MOST_BYTES + 1), 1, "split it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), [t[1:] for t in TEXTS], ids=[t[0] for t in TEXTS])
def test_a_text_that_is_no_manifest(text: str, line: int, words: str) -> None:
    found, problems = manifests.parse(text, "f.yaml")
    assert found == []
    assert words in problems[0].sentence
    assert problems[0].line == line
    assert len(str(problems[0])) < 1_000


def test_aliases_that_multiply_themselves_are_stopped() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    _, problems = manifests.parse("\n".join(rows))
    assert "values in one document" in problems[0].sentence


def test_one_bad_object_hides_no_good_one(tmp_path: Path) -> None:
    good = yaml.safe_dump(service(name="good"))
    bad = yaml.safe_dump(service({"mode": "Maybe"}, name="bad"))
    (tmp_path / "a.yaml").write_text(f"{good}---\n{bad}---\n{yaml.safe_dump(domain())}")
    (tmp_path / "b.json").write_text(json.dumps(job()))
    (tmp_path / "notes.txt").write_text("no manifest")
    found, problems = manifests.read(tmp_path)
    assert [m.name for m in found] == [
        "ModelService default/good",
        "PowerDomain row-a",
        "TrainingJob default/tune",
    ]
    assert len(problems) == 1
    with pytest.raises(ManifestError, match=r"a\.yaml:\d+: ModelService default/bad: spec\.mode"):
        manifests.load(tmp_path)


def test_an_object_given_twice_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(domain()))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(domain(ratingWatts=5)))
    found, problems = manifests.read(tmp_path)
    assert len(found) == 1
    assert "PowerDomain row-a is given already in" in str(problems[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            lambda p: p / "nowhere.yaml", "cannot be read: No such file", id="a file that is not there"
        ),
        pytest.param(lambda p: p, "the folder holds no manifest", id="an empty folder"),
    ],
)
def test_a_path_that_cannot_be_read(tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        manifests.load(make(tmp_path))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ManifestError, match="byte 3 is not UTF-8"):
        manifests.load(tmp_path)


def test_what_the_store_refuses_carries_its_file_and_the_rest_is_applied() -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    lost = service(name="lost", namespace="nowhere")
    found, problems = manifests.parse(f"{yaml.safe_dump(lost)}---\n{yaml.safe_dump(service())}", "f.yaml")
    assert problems == []
    with pytest.raises(
        ManifestError, match=r'f.yaml:1: ModelService nowhere/lost: namespaces "nowhere" not found'
    ):
        now(manifests.apply(store, found))
    assert now(store.get(found[1].resource, "chat", "default"))
