"""The generated schemas: complete, bounded, described, small, and in step with the Python types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from controller.resources import crds, rules
from controller.resources.base import Condition, render
from controller.resources.kinds import BY_KIND, KINDS, Kind
from controller.resources.rule import EACH
from controller.resources.schema import crd, schema_of
from controller.store.embedded import open_store
from controller.store.embedded.validation import Structural
from policies.registry import TABLES
from runtime.clock import VirtualClock
from tests.resources.bad import domain, job, product, service
from tests.store.following import now

MOST_BYTES = 60_000
KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
SOUND = {obj["kind"]: obj for obj in (service(), job(), product(), domain())}
SOUND["AcceleratorNode"] = {
    "apiVersion": "plimsoll.dev/v1alpha1",
    "kind": "AcceleratorNode",
    "metadata": {"name": "gpu-node.example.com"},
}


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below one, with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        if (path, name) != ("", "metadata"):
            yield from parts(part, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from parts(schema[word], f"{path}[]")


@KIND
def test_a_definition_fits_into_60_kb(kind: Kind) -> None:
    assert len(crds.files()[f"plimsoll.dev_{kind.resource.plural}.yaml"].encode()) < MOST_BYTES


def test_a_file_of_the_chart_is_the_definition_and_the_same_each_time() -> None:
    texts = crds.files()
    assert [yaml.safe_load(text) for text in texts.values()] == crds.definitions()
    assert crds.files() == texts
    assert all("Generated" in text.splitlines()[1] for text in texts.values())
    assert not [name for name, text in texts.items() if "{{" in text], "a template would read that"


def test_only_what_changed_is_written_and_what_is_no_definition_is_taken_away(tmp_path: Path) -> None:
    assert len(crds.write(tmp_path)) == len(KINDS)
    assert crds.write(tmp_path) == []
    (tmp_path / "plimsoll.dev_old.yaml").write_text("{}")
    (tmp_path / "plimsoll.dev_powerdomains.yaml").write_text("{}")
    changed = [path.name for path in crds.write(tmp_path)]
    assert changed == ["plimsoll.dev_old.yaml", "plimsoll.dev_powerdomains.yaml"]
    assert crds.write(tmp_path) == []


@KIND
def test_every_field_is_described_for_kubectl_explain(kind: Kind) -> None:
    silent = [
        path
        for path, part in parts(schema_of(kind.resource.kind))
        if not part.get("description") and not path.endswith("[]")
    ]
    assert silent == []


@KIND
def test_every_list_map_string_and_number_is_bounded(kind: Kind) -> None:
    loose = []
    for path, part in parts(schema_of(kind.resource.kind)):
        if path in {".apiVersion", ".kind"}:
            continue
        bounded = {
            "array": "maxItems" in part,
            "string": "maxLength" in part or "enum" in part,
            "integer": {"minimum", "maximum"} <= part.keys(),
            "number": {"minimum", "maximum"} <= part.keys(),
            "object": "additionalProperties" not in part or "maxProperties" in part,
        }
        if not bounded.get(part["type"], True):
            loose.append(path)
    assert loose == []


@KIND
def test_it_is_structural(kind: Kind) -> None:
    for path, part in parts(schema_of(kind.resource.kind)):
        assert "$ref" not in part
        assert "anyOf" not in part
        assert "type" in part, path
        if part["type"] == "array":
            listed = part["x-kubernetes-list-type"]
            assert listed in {"atomic", "map", "set"}
            for key in part.get("x-kubernetes-list-map-keys", ()):
                inner = part["items"]
                assert key in inner.get("required", ()) or "default" in inner["properties"][key], path


@KIND
def test_defaults_of_schema_and_type_are_the_same(kind: Kind) -> None:
    """What the server fills in decodes to what the type assumes of an object without it."""
    written = SOUND[kind.resource.kind]
    filled = msgspec.json.decode(msgspec.json.encode(written))
    Structural(schema_of(kind.resource.kind)).fill(filled)
    assert msgspec.convert(filled, kind.type) == msgspec.convert(written, kind.type)


@KIND
def test_defaults_are_themselves_valid_and_nothing_is_defaulted_in_status(kind: Kind) -> None:
    name = kind.resource.kind
    structural = Structural(schema_of(name))
    filled = msgspec.json.decode(msgspec.json.encode(SOUND[name]))
    structural.fill(filled)
    assert structural.check(filled) == []
    assert "status" not in filled
    for path, part in parts(schema_of(name)["properties"]["status"]):
        assert "default" not in part, path


@KIND
def test_a_status_rendered_from_its_type_is_accepted(kind: Kind) -> None:
    name = kind.resource.kind
    store = open_store(VirtualClock(1_790_000_000.0))
    made = now(store.create(kind.resource, SOUND[name], field_manager="user"))
    status = render(msgspec.convert(made, kind.type).status)  # type: ignore[attr-defined]
    assert None not in status.values()
    status["conditions"] = [
        render(
            Condition(
                type="Accepted",
                status="True",
                reason="Fits",
                message="",
                last_transition_time="2026-11-21T00:00:00Z",
            )
        )
    ]
    obj = {key: made[key] for key in ("apiVersion", "kind")}
    obj["metadata"] = {"name": made["metadata"]["name"], "namespace": made["metadata"].get("namespace", "")}
    after = now(
        store.apply(kind.resource, {**obj, "status": status}, field_manager="operator", subresource="status")
    )
    assert after["status"] == status


@KIND
def test_columns_answer_the_first_question(kind: Kind) -> None:
    version = crd(kind)["spec"]["versions"][0]
    columns = version["additionalPrinterColumns"]
    assert columns[-1]["name"] == "Age"
    schema = schema_of(kind.resource.kind)
    for column in columns[:-1]:
        part: Any = schema
        for name in column["jsonPath"].strip(".").split("."):
            part = part["properties"][name]
        assert part["type"] == column["type"]
        assert column["description"]


def test_names_that_people_type() -> None:
    names = {kind.resource.kind: crd(kind)["spec"]["names"] for kind in KINDS}
    assert {kind: entry["shortNames"] for kind, entry in names.items()} == {
        "ModelService": ["msvc"],
        "TrainingJob": ["tjob"],
        "AcceleratorClass": ["aclass"],
        "PowerDomain": ["pdom"],
        "AcceleratorNode": ["anode"],
    }
    assert all(entry["categories"] == ["plimsoll"] for entry in names.values())
    assert crd(BY_KIND["ModelService"])["metadata"]["name"] == "modelservices.plimsoll.dev"


def test_scopes_and_subresources() -> None:
    scopes = {kind.resource.kind: crd(kind)["spec"]["scope"] for kind in KINDS}
    assert [kind for kind, scope in scopes.items() if scope == "Namespaced"] == [
        "ModelService",
        "TrainingJob",
    ]
    versions = {kind.resource.kind: crd(kind)["spec"]["versions"][0] for kind in KINDS}
    assert all(version["subresources"]["status"] == {} for version in versions.values())
    assert versions["ModelService"]["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert "scale" not in versions["TrainingJob"]["subresources"]


@KIND
def test_no_integer_is_bounded_by_what_a_float_does_not_hold(kind: Kind) -> None:
    """The server keeps bounds as float64; under 2**63 - 1, rounded up, it refuses every value (measured)."""
    for path, part in parts(schema_of(kind.resource.kind)):
        if part["type"] == "integer":
            assert -(2**53) < part["minimum"] <= part["maximum"] < 2**53, path


@KIND
def test_fields_to_select_by_are_scalars_of_the_schema(kind: Kind) -> None:
    version = crd(kind)["spec"]["versions"][0]
    paths = [entry["jsonPath"] for entry in version["selectableFields"]]
    assert 2 <= len(paths) <= 8
    for path in paths:
        part: Any = schema_of(kind.resource.kind)
        for name in path.strip(".").split("."):
            part = part["properties"][name]
        assert part["type"] in {"string", "boolean", "integer"}, path


def test_policies_are_chosen_from_those_there_are() -> None:
    spec = schema_of("ModelService")["properties"]["spec"]["properties"]["policies"]["properties"]
    for loop, rows in TABLES.items():
        if loop in spec:
            assert spec[loop]["properties"]["name"]["enum"] == sorted(rows)
    domain_spec = schema_of("PowerDomain")["properties"]["spec"]["properties"]
    assert domain_spec["policy"]["properties"]["name"]["enum"] == sorted(TABLES["power"])


def test_the_wanted_size_has_a_default_since_scale_of_an_absent_one_is_an_error() -> None:
    assert schema_of("ModelService")["properties"]["spec"]["properties"]["replicas"]["default"] == 0


def test_every_rule_across_fields_is_in_the_schema_with_its_message() -> None:
    for kind, entries in rules.RULES.items():
        for rule in entries:
            part: Any = schema_of(kind)
            for name in rule.path:
                part = part["items"] if name == EACH else part["properties"][name]
            found = [entry for entry in part["x-kubernetes-validations"] if entry["rule"] == rule.cel]
            assert [entry["message"] for entry in found] == [rule.message]


@pytest.mark.parametrize("name", ["gpu-node.example.com", "a" * 200], ids=["dotted", "long"])
def test_nodes_keep_their_own_names(name: str) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    obj = {**SOUND["AcceleratorNode"], "metadata": {"name": name}}
    now(store.create(BY_KIND["AcceleratorNode"].resource, obj, field_manager="agent"))
