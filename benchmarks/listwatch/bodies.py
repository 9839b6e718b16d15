"""Pods and nodes as a busy cluster has them, in bytes made once: 6.4 kB a pod, most of it what no cache wants.

The shapes are those of an API server's answers: managedFields of four writers, probes, mounts, conditions, images of a
node. Versions and names have a fixed width, so that one body differs from the next by replaced bytes only.
"""

from __future__ import annotations

from typing import Any

import msgspec

POD_BYTES = 6_400
NAME, UID, NODE, VERSION, ADDRESS = "@@@@@@@", "########", "&&&&&&", "%%%%%%%%%%", "!!!!!!!!!!!"
SINCE = "2026-11-20T~~:~~:~~Z"
"""Since when conditions are as they are: of each pod its own, as nothing else here."""
WHEN = "2026-11-21T08:00:00Z"


def pod_template() -> bytes:
    """A pod with placeholders, as long as `POD_BYTES`."""
    pod = msgspec.json.decode(msgspec.json.encode(_POD))
    short = POD_BYTES - len(msgspec.json.encode(pod))
    pod["spec"]["containers"][0]["args"][0] += "x" * short
    return msgspec.json.encode(pod)


def pod(template: bytes, number: int, node: int, version: int) -> bytes:
    """One pod."""
    return (
        template.replace(NAME.encode(), b"%07d" % number)
        .replace(UID.encode(), b"%08x" % number)
        .replace(NODE.encode(), b"%06d" % node)
        .replace(ADDRESS.encode(), b"10.%03d.%04d" % (number % 256, number // 256))
        .replace(
            SINCE.encode(),
            b"2026-11-20T%02d:%02d:%02dZ" % (number // 3600 % 24, number // 60 % 60, number % 60),
        )
        .replace(VERSION.encode(), b"%010d" % version)
    )


def node_template() -> bytes:
    """A node with placeholders."""
    return msgspec.json.encode(_NODE)


def node(template: bytes, number: int, version: int) -> bytes:
    """One node."""
    return template.replace(NODE.encode(), b"%06d" % number).replace(VERSION.encode(), b"%010d" % version)


def _fields(*paths: str) -> dict[str, Any]:
    """A tree of managed fields."""
    tree: dict[str, Any] = {}
    for path in paths:
        at = tree
        for part in path.split("."):
            at = at.setdefault(part if part.startswith(("k:", ".")) else f"f:{part}", {})
    return tree


def _managed(manager: str, operation: str, subresource: str, *paths: str) -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": "v1",
        "time": WHEN,
        "fieldsType": "FieldsV1",
        "fieldsV1": _fields(*paths),
    }
    return entry | ({"subresource": subresource} if subresource else {})


_CONTAINER_FIELDS = (
    *("command", "env", "image", "imagePullPolicy", "name", "ports", "readinessProbe", "resources.limits"),
    *("resources.requests", "livenessProbe.httpGet", "livenessProbe.periodSeconds", "terminationMessagePath"),
    *("terminationMessagePolicy", "volumeMounts", "securityContext.runAsNonRoot", "startupProbe.httpGet"),
)


ACCESS = "kube-api-access-8f2kq"
_ACCESS_SOURCES = [
    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {
        "downwardAPI": {
            "items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
            ]
        }
    },
]


_PROBE = {"httpGet": {"path": "/health", "port": 8000, "scheme": "HTTP"}, "periodSeconds": 10}
_AMOUNTS = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}
_POD_SPEC: dict[str, Any] = {
    "nodeName": f"node-{NODE}",
    "containers": [
        {
            "name": "engine",
            "image": "registry.example/serving/engine:1.2.3",
            "command": ["engine", "--model", "/models/llama", "--port", "8000"],
            "args": ["--settings="],
            "env": [{"name": f"SETTING_{each}", "value": f"value-{each}"} for each in range(6)],
            "ports": [{"containerPort": 8000, "protocol": "TCP", "name": "http"}],
            "resources": {"limits": _AMOUNTS, "requests": _AMOUNTS},
            "volumeMounts": [
                {"name": "models", "mountPath": "/models", "readOnly": True},
                {
                    "name": ACCESS,
                    "readOnly": True,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                },
            ],
            "livenessProbe": _PROBE,
            "readinessProbe": _PROBE,
            "startupProbe": _PROBE,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        }
    ],
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": ACCESS, "projected": {"sources": _ACCESS_SOURCES, "defaultMode": 420}},
    ],
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "serving",
    "securityContext": {},
    "schedulerName": "default-scheduler",
    "tolerations": [
        {
            "key": f"node.kubernetes.io/{each}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for each in ("not-ready", "unreachable")
    ],
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}


_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "serving-7d9c5b8f64", "controller": True}
_METADATA: dict[str, Any] = {
    "name": f"serving-{NAME}",
    "generateName": "serving-7d9c5b8f64-",
    "namespace": "shop",
    "uid": f"{UID}-5f0e-4a7b-9d5c-0123456789ab",
    "resourceVersion": VERSION,
    "creationTimestamp": WHEN,
    "labels": {"app": "serving", "pod-template-hash": "7d9c5b8f64", "example.com/team": "search"},
    "annotations": {"example.com/config": "c" * 64},
    "ownerReferences": [{**_OWNER, "uid": "11111111-2222-3333-4444-555555555555", "blockOwnerDeletion": True}],
    "managedFields": [
        _managed("kube-controller-manager", "Update", "", "metadata.labels.app", "metadata.ownerReferences",
                 *(f"spec.containers.k:{{\"name\":\"engine\"}}.{each}" for each in _CONTAINER_FIELDS)),
        _managed("kube-scheduler", "Update", "status", "status.conditions.k:{\"type\":\"PodScheduled\"}"),
        _managed("kubelet", "Update", "status", "status.hostIP", "status.phase", "status.podIP", "status.podIPs",
                 "status.containerStatuses",
                 *(f"status.conditions.k:{{\"type\":\"{each}\"}}.status" for each in _CONDITIONS)),
        _managed("autoscaler", "Apply", "", "metadata.annotations.example\\u002ecom/config"),
    ],
}  # fmt: skip
_POD: dict[str, Any] = {
    "metadata": _METADATA,
    "spec": _POD_SPEC,
    "status": {
        "phase": "Running",
        "conditions": [
            {"type": each, "status": "True", "lastProbeTime": None, "lastTransitionTime": SINCE}
            for each in _CONDITIONS
        ],
        "hostIP": "10.0.0.1",
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "startTime": WHEN,
        "qosClass": "Guaranteed",
        "containerStatuses": [
            {
                "name": "engine",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": "registry.example/serving/engine:1.2.3",
                "imageID": "registry.example/serving/engine@sha256:" + "0" * 64,
                "containerID": "containerd://" + "1" * 64,
                "state": {"running": {"startedAt": WHEN}},
                "lastState": {},
            }
        ],
    },
}


_NODE_CONDITIONS = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
_NODE_AMOUNTS = {
    "cpu": "96",
    "memory": "1056Gi",
    "nvidia.com/gpu": "8",
    "pods": "110",
    "ephemeral-storage": "900Gi",
}
_NODE: dict[str, Any] = {
    "metadata": {
        "name": f"node-{NODE}",
        "uid": f"{NODE}00-5f0e-4a7b-9d5c-0123456789ab",
        "resourceVersion": VERSION,
        "creationTimestamp": WHEN,
        "labels": {
            "kubernetes.io/hostname": f"node-{NODE}",
            "node.kubernetes.io/instance-type": "gpu-8x",
            "topology.kubernetes.io/zone": "zone-a",
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        },
        "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        "managedFields": [
            _managed("kubelet", "Update", "status", *(f"status.{each}" for each in ("capacity", "images", "nodeInfo")),
                     *(f"status.conditions.k:{{\"type\":\"{each}\"}}.lastHeartbeatTime" for each in _NODE_CONDITIONS)),
        ],
    },
    "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "providerID": f"cloud:///{NODE}"},
    "status": {
        "capacity": _NODE_AMOUNTS,
        "allocatable": _NODE_AMOUNTS,
        "conditions": [
            {
                "type": each,
                "status": "True" if each == "Ready" else "False",
                "lastHeartbeatTime": WHEN,
                "lastTransitionTime": WHEN,
                "reason": "KubeletSays",
                "message": f"the kubelet says {each}",
            }
            for each in _NODE_CONDITIONS
        ],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "images": [
            {"names": [f"registry.example/image-{each}@sha256:" + f"{each:064x}"], "sizeBytes": 1_000_000 + each}
            for each in range(30)
        ],
        "nodeInfo": {
            "machineID": "0" * 32,
            "systemUUID": "0" * 32,
            "bootID": "0" * 32,
            "kernelVersion": "6.8.0",
            "osImage": "Linux",
            "containerRuntimeVersion": "containerd://2.1.0",
            "kubeletVersion": "v1.36.3",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    },
}  # fmt: skip
