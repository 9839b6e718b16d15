"""What the API server does of itself to the kinds of Kubernetes: defaults, what may not change, grace.

Only the rules that the operator or the fleet can run into; they keep the embedded store from accepting
what a real cluster refuses.
"""

from __future__ import annotations

from typing import Any

from controller.store.embedded import wording
from controller.store.embedded.pod_defaults import fill_pod, fill_service
from controller.store.embedded.wording import FieldFault
from controller.store.interface import JsonObject

DEFAULT_GRACE_SECONDS = 30
_UNTOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_POD_SPEC_DEFAULTS: JsonObject = {
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": DEFAULT_GRACE_SECONDS,
    "priority": 0,
}
_POD_FIXED = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def on_create(kind: str, obj: JsonObject) -> None:
    """Fill in what the server fills in at creation, in place; status is the server's except a node's."""
    if kind == "Pod":
        _new_pod(obj)
    elif kind == "Namespace":
        labels = obj["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj["status"] = {"phase": "Active"}
    elif kind == "Service":
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
        fill_service(spec)
        obj["status"] = {"loadBalancer": {}}


def _new_pod(obj: JsonObject) -> None:
    spec = obj.setdefault("spec", {})
    for name, value in _POD_SPEC_DEFAULTS.items():
        spec.setdefault(name, value)
    fill_pod(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in _UNTOLERATED:
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _tolerates(toleration: JsonObject, key: str) -> bool:
    return toleration.get("key", "") in {"", key} and toleration.get("effect", "") in {"", "NoExecute"}


def faults(kind: str, old: JsonObject | None, new: JsonObject) -> list[FieldFault]:
    """What the server refuses in a new or changed object of a core kind; `old` None at creation."""
    if kind == "Pod":
        return _pod_faults(new) if old is None else _pod_changes(old, new)
    if kind == "Service" and not new.get("spec", {}).get("ports"):
        return [wording.required("spec.ports")] if not _headless(new) else []
    return []


def _headless(service: JsonObject) -> bool:
    return bool(service.get("spec", {}).get("clusterIP") == "None")


def _pod_faults(pod: JsonObject) -> list[FieldFault]:
    containers = pod["spec"].get("containers")
    if not containers:
        return [wording.required("spec.containers")]
    found: list[FieldFault] = []
    for index, container in enumerate(containers):
        found.extend(
            wording.required(f"spec.containers[{index}].{name}")
            for name in ("name", "image")
            if not container.get(name)
        )
    if pod["spec"].get("nodeName") and pod["spec"].get("schedulingGates"):
        found.append(
            wording.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
        )
    return found


def _pod_changes(old: JsonObject, new: JsonObject) -> list[FieldFault]:
    was, now = old["spec"], new.get("spec", {})
    if was == now:
        return []
    gated = bool(was.get("schedulingGates"))
    if _fixed_part(was, gated) != _fixed_part(now, gated) or (gated and not _only_narrows(was, now)):
        return [wording.forbidden("spec", _POD_FIXED)]
    had = [gate["name"] for gate in was.get("schedulingGates", [])]
    added = [gate["name"] for gate in now.get("schedulingGates", []) if gate["name"] not in had]
    if added:
        detail = f"only deletion is allowed, but found new scheduling gate '{added[0]}'"
        return [wording.forbidden("spec.schedulingGates", detail)]
    return []


def _fixed_part(spec: JsonObject, gated: bool) -> JsonObject:
    """A pod's specification without the fields that may change after creation."""
    free = {"tolerations", "activeDeadlineSeconds", "schedulingGates"}
    if gated:
        free |= {"nodeSelector", "affinity"}
    fixed = {name: value for name, value in spec.items() if name not in free}
    fixed["containers"] = [
        {name: value for name, value in container.items() if name != "image"}
        for container in spec.get("containers", [])
    ]
    return fixed


def _only_narrows(was: JsonObject, now: JsonObject) -> bool:
    """A gated pod may be given a place, not another one."""
    chosen: JsonObject = now.get("nodeSelector") or {}
    kept = all(chosen.get(key) == value for key, value in (was.get("nodeSelector") or {}).items())
    return kept and (not was.get("affinity") or was["affinity"] == now.get("affinity"))


def grace_of(kind: str, obj: JsonObject, asked: int | None) -> int:
    """Seconds an object stays after its deletion was asked for; only bound, unfinished pods have any."""
    if kind != "Pod":
        return 0
    spec: dict[str, Any] = obj.get("spec", {})
    if not spec.get("nodeName") or obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    if asked is not None:
        return max(0, asked)
    return int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
