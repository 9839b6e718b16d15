"""A drawn `spec.pod` with what rules across fields forbid put right."""

from __future__ import annotations

from typing import Any

from controller.resources.podrules import RANK_VARIABLES

Json = dict[str, Any]


def mend_pod(spec: Json) -> None:
    """Mend the pod of a spec in place."""
    part = spec.get("pod", {})
    for variable in part.get("env", []):
        _mend_variable(variable)
    for source in part.get("envFrom", []):
        _only_one(source, ("secretRef", "configMapRef"), {"name": "a"})
    _mend_volumes(part)
    for toleration in part.get("tolerations", []):
        _mend_toleration(toleration)


def _only_one(value: Json, names: tuple[str, ...], otherwise: Json) -> None:
    """Leave the first source that is there; give one where there is none."""
    given = [name for name in names if name in value]
    for name in given[1:]:
        del value[name]
    if not given:
        value[names[0]] = otherwise


def _mend_variable(variable: Json) -> None:
    if variable["name"].startswith("PLIMSOLL_") or variable["name"] in RANK_VARIABLES:
        variable["name"] = f"X_{variable['name']}"
    if "valueFrom" in variable:
        variable.pop("value", None)
        names = ("secretKeyRef", "configMapKeyRef", "fieldRef")
        _only_one(variable["valueFrom"], names, {"name": "a", "key": "b"})


def _mend_volumes(part: Json) -> None:
    for volume in part.get("volumes", []):
        volume["name"] = volume["name"].replace("plimsoll-", "their-")
        kinds = ("persistentVolumeClaim", "emptyDir", "configMap", "secret")
        _only_one(volume, kinds, {"claimName": "a"})
    names = [volume["name"] for volume in part.get("volumes", [])]
    if not names:
        part.pop("volumeMounts", None)
    for mount in part.get("volumeMounts", []):
        mount["name"] = names[0]
        if mount.get("subPath", "").startswith("/") or ".." in mount.get("subPath", ""):
            del mount["subPath"]


def _mend_toleration(toleration: Json) -> None:
    if not toleration.get("key"):
        toleration["operator"] = "Exists"
    if toleration.get("operator") == "Exists":
        toleration.pop("value", None)
    if toleration.get("effect") != "NoExecute":
        toleration.pop("tolerationSeconds", None)
