"""Bad input: the store refuses it in the API server's words, the loader says in which line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import manifests, rules
from controller.resources.documents import MOST_BYTES
from controller.resources.kinds import BY_KIND
from controller.resources.manifests import ManifestError
from controller.store.embedded import open_store
from controller.store.errors import BadRequest, Invalid
from runtime.clock import VirtualClock
from tests.resources.bad import Bad, Change, Said, domain, job, product, service
from tests.resources.bad_manifests import BAD, CHANGES, RULED, STRANGE
from tests.store.following import now


def ids(table: Sequence[Bad | Change]) -> list[str]:
    return [case.story for case in table]


def refusal(kind: str, write: Callable[[Any, Any], Any]) -> str:
    """What a fresh store answers to a write that it must refuse."""
    store = open_store(VirtualClock(1_790_000_000.0))
    with pytest.raises((Invalid, BadRequest)) as caught:
        write(store, BY_KIND[kind].resource)
    return caught.value.message


@pytest.mark.parametrize("bad", [*BAD, *STRANGE], ids=ids([*BAD, *STRANGE]))
def test_the_store_refuses_it_in_the_servers_words(bad: Bad) -> None:
    said = refusal(
        bad.obj["kind"], lambda store, kind: now(store.create(kind, bad.obj, field_manager="kubectl"))
    )
    assert said == str(bad.apart or bad.words)


def test_the_stores_own_words_are_few_and_explained() -> None:
    apart = [bad for bad in (*BAD, *STRANGE) if bad.apart]
    assert len(apart) <= 5
    assert all(bad.why and str(bad.apart) != str(bad.words) for bad in apart)


def changed(store: Any, resource: Any, change: Change) -> Any:
    """The object after the change, made by whoever writes such things."""
    meta = change.obj["metadata"]
    where: Any = (resource, meta["name"])
    rest = {"namespace": meta.get("namespace", ""), "field_manager": "kubectl"}
    now(store.create(resource, change.obj, field_manager="kubectl"))
    if change.status:
        now(store.patch(*where, {"status": change.status}, subresource="status", **rest))
    return now(store.patch(*where, change.patch, subresource=change.subresource, **rest))


@pytest.mark.parametrize(
    "change", [c for c in CHANGES if not c.cel], ids=ids([c for c in CHANGES if not c.cel])
)
def test_the_store_refuses_the_change_in_the_servers_words(change: Change) -> None:
    said = refusal(change.obj["kind"], lambda store, kind: changed(store, kind, change))
    assert said == str(change.words)


@pytest.mark.parametrize("bad", RULED, ids=ids(RULED))
def test_what_only_cel_refuses_the_store_takes_and_the_operators_twin_refuses(bad: Bad) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    made = now(store.create(BY_KIND[bad.obj["kind"]].resource, bad.obj, field_manager="kubectl"))
    assert not store.capabilities.runs_cel
    assert isinstance(bad.words, Said)
    told = [f"{field}: Invalid value: {sentence}" for field, sentence in rules.broken(bad.obj["kind"], made)]
    assert tuple(told) == bad.words.faults


@pytest.mark.parametrize("change", [c for c in CHANGES if c.cel], ids=ids([c for c in CHANGES if c.cel]))
def test_a_change_that_only_cel_refuses_is_known_to_its_twin(change: Change) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    resource = BY_KIND[change.obj["kind"]].resource
    new = changed(store, resource, change)
    old = {**new, **change.obj, "status": change.status}
    sentences = [sentence for _, sentence in rules.broken(resource.kind, new, old)]
    (fault,) = change.words.faults
    assert [fault.endswith(f": {sentence}") for sentence in sentences] == [True]


def test_every_rule_in_cel_is_broken_by_a_case() -> None:
    faults = "\n".join(str(case.words) for case in (*RULED, *CHANGES))
    silent = [rule.message for table in rules.RULES.values() for rule in table if rule.message not in faults]
    assert silent == []


def test_there_are_many_and_no_story_is_told_twice() -> None:
    stories = ids([*BAD, *STRANGE, *RULED, *CHANGES])
    assert len(stories) >= 100
    assert len(set(stories)) == len(stories)


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


@pytest.mark.parametrize("bad", [*BAD, *RULED], ids=ids([*BAD, *RULED]))
def test_the_loader_says_the_same_with_its_line(bad: Bad) -> None:
    text = yaml.safe_dump(bad.obj, sort_keys=False)
    found, problems = manifests.parse(text, "shop.yaml")
    assert found == []
    words = bad.apart or bad.words
    assert isinstance(words, Said)
    # Said to a machine, not to the author of a file: what the server adds of no field, or of the scale subresource.
    spoken = [fault for fault in words.faults if not fault.startswith(("<nil>", "."))]
    sentences = [problem.sentence.split(": ", 1)[1] for problem in problems]
    assert sentences == [
        fault.replace(": Invalid value: ", ": ") if bad in RULED else fault for fault in spoken
    ]
    assert problems[0].line == line_of(text, bad.field)
    assert str(problems[0]).startswith(f"shop.yaml:{problems[0].line}: {bad.obj['kind']} ")
    assert len(str(problems[0])) < 1_000


@pytest.mark.parametrize("sound", [service(), job(), product(), domain()], ids=lambda obj: obj["kind"])
def test_what_the_table_is_laid_over_is_sound(sound: Any) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    resource = BY_KIND[sound["kind"]].resource
    now(store.create(resource, sound, field_manager="kubectl", dry_run=True))
    assert manifests.parse(json.dumps(sound))[1] == []


UNKNOWN = [
    (service({"repilcas": 2}), "spec.repilcas", "did you mean spec.replicas?"),
    (service({"objectives": [{"ttftSeconds": 1, "tpotSeconds": 1, "percentil": 0.9}]}),
     "spec.objectives[0].percentil", "did you mean spec.objectives[0].percentile?"),
    (service({"pod": {"hostNetwork": True}}), "spec.pod.hostNetwork", "of a pod is not supported, and no field of ModelService: pods keep off their host"),
    (service({"pod": {"nodeSelector": {"a": "b"}}}), "spec.pod.nodeSelector", "choose products by spec.accelerators"),
    (job(pod={"command": ["train"]}), "spec.pod.command", "write it as spec.command"),
    (service({"pod": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}}), "spec.pod.volumes[0].hostPath", "did you mean spec.pod.volumes[0].secret?"),
    (service({"pod": {"enviroment": []}}), "spec.pod.enviroment", "did you mean spec.pod.envFrom?"),
    (service({"zebra": 1}), "spec.zebra", "known here are accelerators, args, command"),
    (service() | {"specs": {}}, "specs", "did you mean spec?"),
    (service(label={"a": "b"}), "metadata.label", "did you mean metadata.labels?"),
    (job(checkpoint={"interval": 5}), "spec.checkpoint.interval", "did you mean spec.checkpoint.intervalSeconds?"),
    (service({"model": {"name": "x", "m" * 1_000: 1}}), "spec.model.mmm", "... (1011 characters) is no field"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "path", "hint"), UNKNOWN, ids=[path for _, path, _ in UNKNOWN])
def test_a_field_that_does_not_exist_is_named_with_the_nearest_that_does(
    obj: Any, path: str, hint: str
) -> None:
    _, problems = manifests.parse(json.dumps(obj))
    assert path in problems[0].sentence
    assert hint in problems[0].sentence
    assert len(str(problems[0])) < 1_000
    said = refusal(obj["kind"], lambda store, kind: now(store.create(kind, obj, field_manager="kubectl")))
    assert "strict decoding error: unknown field" in said


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
