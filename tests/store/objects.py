"""Objects that the store's tests put into it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def pod(name: str = "engine-0", node: str = "", **metadata: Any) -> Json:
    """A pod with one container; `node` binds it at birth."""
    spec: Json = {"containers": [{"name": "engine", "image": "example/engine:1"}]}
    if node:
        spec["nodeName"] = node
    meta = {"name": name, "namespace": "default", **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def pinned_pod(name: str, node: str, gpus: int = 1) -> Json:
    """A pod that must go to one node, as the operator makes them."""
    made = pod(name)
    made["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"nodeSelectorTerms": [term]}
    made["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return made


def node(name: str = "n1", gpus: int = 8, ready: bool = True) -> Json:
    """A node that its kubelet calls ready."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "96", "memory": "1Ti", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def service(name: str = "chat", **spec: Any) -> Json:
    """A small ModelService."""
    return {
        "apiVersion": "plimsoll.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"name": "llama-3.1-8b"}, **spec},
    }


def condition(kind: str, status: str = "True") -> Json:
    """A condition with all that the schema wants."""
    return {
        "type": kind,
        "status": status,
        "reason": "Tested",
        "message": "",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }


def of_managed_fields(obj: Json, manager: str) -> list[str]:
    """Leaves that a manager owns by metadata.managedFields, as dotted paths in order."""
    found: list[str] = []

    def walk(fields: Json, path: str) -> None:
        for key, below in fields.items():
            if key == ".":
                continue
            here = f"{path}.{key.removeprefix('f:')}" if key.startswith("f:") else f"{path}[{key[2:]}]"
            if below:
                walk(below, here)
            else:
                found.append(here)

    for row in obj["metadata"].get("managedFields", ()):
        if row["manager"] == manager:
            walk(row["fieldsV1"], "")
    return sorted(found)
