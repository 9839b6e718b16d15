"""Kinds of others that some plays need: Karpenter's and the cluster autoscaler's, from definitions of the same schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from controller.provisioning.objects import NODE_CLAIM, POD_TEMPLATE, PROVISIONING_REQUEST
from controller.store.interface import JsonObject, Resource

FOLDER = Path(__file__).parents[1] / "provisioning/crds"


@cache
def definitions() -> tuple[JsonObject, ...]:
    """The CustomResourceDefinitions."""
    return tuple(yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml")))


def further_kinds() -> dict[Resource, JsonObject | None]:
    """The kinds with their schemas, for an embedded store."""
    schemas = {each["spec"]["names"]["kind"]: _schema(each) for each in definitions()}
    found: dict[Resource, JsonObject | None] = {
        r: schemas[r.kind] for r in (NODE_CLAIM, PROVISIONING_REQUEST)
    }
    return found | {POD_TEMPLATE: None}


def _schema(definition: JsonObject) -> JsonObject:
    schema: JsonObject = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema
