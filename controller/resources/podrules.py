"""Rules across the fields of the user's part of a pod (`spec.pod`), for both kinds that have one."""

from __future__ import annotations

import re
from typing import Any

from controller.resources.podpart import RESERVED_VARIABLES, RESERVED_VOLUMES
from controller.resources.rule import EACH, Holds, JsonObject, Rule

POD = ("spec", "pod")
OURS = "plimsoll.dev/"
MANAGED_BY = "app.kubernetes.io/managed-by"
RANK_VARIABLES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "NNODES",
    "NODE_RANK",
    "NPROC_PER_NODE",
    "RANK",
    "RDZV_BACKEND",
    "RDZV_ENDPOINT",
    "RDZV_ID",
    "WORLD_SIZE",
)
"""Variables of a rendezvous, which the operator sets for each attempt anew."""
LONGEST_KEY = 317
"""Characters of the longest name of a label or annotation: 253 of its prefix, a slash, and 63."""
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_KEY = re.compile(rf"({_LABEL}([.]{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")


def _one_of(path: tuple[str, ...], names: tuple[str, ...], message: str) -> Rule:
    """Exactly one of the fields is given."""
    given = ", ".join(f"has(self.{name})" for name in names)
    return Rule(
        path=path,
        cel=f"[{given}].filter(given, given).size() == 1",
        message=message,
        holds=lambda value, _: sum(value.get(name) is not None for name in names) == 1,
    )


def _never_ours(what: str) -> Holds:
    others = (MANAGED_BY,) if what == "labels" else ()
    return lambda names, _: not any(name.startswith(OURS) or name in others for name in names)


def _names(what: str, also: str) -> tuple[Rule, Rule]:
    """The names of labels or annotations: not ours, and of the form that Kubernetes takes."""
    return (
        Rule(
            path=(*POD, what),
            cel=f"self.all(name, !name.startsWith('{OURS}'){also})",
            message=f"names of {OURS.removesuffix('/')} and {MANAGED_BY} are the operator's; leave them out",
            holds=_never_ours(what),
        ),
        Rule(
            path=(*POD, what),
            cel=f"self.all(name, name.size() <= {LONGEST_KEY} && name.matches('^{_KEY.pattern}$'))",
            message="a name is letters, digits, '-', '_' and '.', at most 63 of them, after a domain and a slash if any",
            holds=lambda names, _: all(_is_key(name) for name in names),
        ),
    )


def _is_key(name: str) -> bool:
    return len(name) <= LONGEST_KEY and _KEY.fullmatch(name) is not None


def _mounts_have_volumes(pod: JsonObject, _: Any) -> bool:
    names = {volume["name"] for volume in pod.get("volumes", ())}
    return all(mount["name"] in names for mount in pod.get("volumeMounts", ()))


def _value_or_source(variable: JsonObject, _: Any) -> bool:
    return not variable.get("value") or variable.get("valueFrom") is None


def _exists_has_no_value(toleration: JsonObject, _: Any) -> bool:
    return toleration.get("operator", "Equal") != "Exists" or not toleration.get("value")


def _any_key_exists(toleration: JsonObject, _: Any) -> bool:
    return bool(toleration.get("key")) or toleration.get("operator") == "Exists"


def _seconds_of_no_execute(toleration: JsonObject, _: Any) -> bool:
    return toleration.get("tolerationSeconds") is None or toleration.get("effect") == "NoExecute"


def _inside(mount: JsonObject, _: Any) -> bool:
    path = mount.get("subPath", "")
    return not path.startswith("/") and ".." not in path.split("/")


_ENV = (*POD, "env", EACH)
_VOLUME = (*POD, "volumes", EACH)
_MOUNT = (*POD, "volumeMounts", EACH)
_TOLERATION = (*POD, "tolerations", EACH)

POD_RULES: tuple[Rule, ...] = (
    *_names("labels", f" && name != '{MANAGED_BY}'"),
    *_names("annotations", ""),
    Rule(
        path=_ENV,
        cel="!has(self.value) || self.value == '' || !has(self.valueFrom)",
        message="a variable has a value or comes from somewhere; give value or valueFrom",
        field=".value",
        holds=_value_or_source,
    ),
    Rule(
        path=_ENV,
        cel=f"!self.name.startsWith('{RESERVED_VARIABLES}')",
        message=f"variables that begin with {RESERVED_VARIABLES} are set by the operator; use another name",
        field=".name",
        holds=lambda variable, _: not variable["name"].startswith(RESERVED_VARIABLES),
    ),
    _one_of(
        (*_ENV, "valueFrom"),
        ("secretKeyRef", "configMapKeyRef", "fieldRef"),
        "give one of secretKeyRef, configMapKeyRef and fieldRef",
    ),
    _one_of((*POD, "envFrom", EACH), ("secretRef", "configMapRef"), "give one of secretRef and configMapRef"),
    _one_of(
        _VOLUME,
        ("persistentVolumeClaim", "emptyDir", "configMap", "secret"),
        "a volume has one source: persistentVolumeClaim, emptyDir, configMap or secret",
    ),
    Rule(
        path=_VOLUME,
        cel=f"!self.name.startsWith('{RESERVED_VOLUMES}')",
        message=f"volumes whose names begin with {RESERVED_VOLUMES} are the operator's; use another name",
        field=".name",
        holds=lambda volume, _: not volume["name"].startswith(RESERVED_VOLUMES),
    ),
    Rule(
        path=POD,
        cel="!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes)"
        " && self.volumes.exists(volume, volume.name == mount.name))",
        message="each mount names one of spec.pod.volumes; add the volume, or take the mount away",
        field=".volumeMounts",
        holds=_mounts_have_volumes,
    ),
    Rule(
        path=_MOUNT,
        cel="!has(self.subPath) || (!self.subPath.startsWith('/') && !self.subPath.split('/').exists(part, part == '..'))",
        message="a subPath stays inside its volume; begin it without a slash, and leave '..' out",
        field=".subPath",
        holds=_inside,
    ),
    Rule(
        path=_TOLERATION,
        cel="(has(self.key) && self.key != '') || self.operator == 'Exists'",
        message="a toleration of any key needs the operator Exists; give a key, or write operator: Exists",
        field=".operator",
        holds=_any_key_exists,
    ),
    Rule(
        path=_TOLERATION,
        cel="self.operator != 'Exists' || !has(self.value) || self.value == ''",
        message="Exists stands any value; leave value out",
        field=".value",
        holds=_exists_has_no_value,
    ),
    Rule(
        path=_TOLERATION,
        cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="only a NoExecute taint is stood for a time; write effect: NoExecute, or leave tolerationSeconds out",
        field=".tolerationSeconds",
        holds=_seconds_of_no_execute,
    ),
)
"""For ModelServices and TrainingJobs alike."""

RANK_RULES: tuple[Rule, ...] = (
    Rule(
        path=_ENV,
        cel=f"!(self.name in [{', '.join(repr(name) for name in RANK_VARIABLES)}])",
        message="variables of the rendezvous are set by the operator for each attempt; leave them out",
        field=".name",
        holds=lambda variable, _: variable["name"] not in RANK_VARIABLES,
    ),
)
"""For TrainingJobs, whose ranks find each other by what the operator tells them."""
