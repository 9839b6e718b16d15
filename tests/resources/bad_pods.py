"""The user's part of a pod, spoilt: what only a rule in CEL refuses, what a schema refuses, and fields that there are not."""

from __future__ import annotations

from typing import Any

from tests.resources.bad import LEFT_OUT, Bad, Json, M, Said, T, job, service


def pod(**part: Any) -> Json:
    """A service whose pods have this part of the user's."""
    return service({"pod": part})


def of_pod(fault: str) -> Said:
    """What is said of a field below `spec.pod`."""
    return M(f"spec.pod.{fault}")


def variable(**more: Any) -> Json:
    return pod(env=[{"name": "TOKEN", **more}])


def toleration(**more: Any) -> Json:
    return pod(tolerations=[more])


def volume(**more: Any) -> Json:
    return pod(volumes=[{"name": "data", **more}])


SECRET: Json = {"name": "hub", "key": "token"}
LONG_NAME = f"{'a' * 64}"
OURS = "names of plimsoll.dev and app.kubernetes.io/managed-by are the operator's; leave them out"
NAMED = "a name is letters, digits, '-', '_' and '.', at most 63 of them, after a domain and a slash if any"
ONE_SOURCE = "a volume has one source: persistentVolumeClaim, emptyDir, configMap or secret"

RULED_PODS: tuple[Bad, ...] = (
    Bad("a label of ours", pod(labels={"plimsoll.dev/service": "other"}),
        of_pod(f"labels: Invalid value: {OURS}"), "spec.pod.labels"),
    Bad("pods that say they are somebody else's", pod(labels={"app.kubernetes.io/managed-by": "me"}),
        of_pod(f"labels: Invalid value: {OURS}"), "spec.pod.labels"),
    Bad("an annotation of ours", pod(annotations={"plimsoll.dev/launch": "{}"}),
        of_pod(f"annotations: Invalid value: {OURS}"), "spec.pod.annotations"),
    Bad("a label whose name no pod could have", pod(labels={"shop floor": "1"}),
        of_pod(f"labels: Invalid value: {NAMED}"), "spec.pod.labels"),
    Bad("an annotation whose name is too long", pod(annotations={f"example.com/{LONG_NAME}": "1"}),
        of_pod(f"annotations: Invalid value: {NAMED}"), "spec.pod.annotations"),
    Bad("a variable with a value and a source", variable(value="x", valueFrom={"secretKeyRef": SECRET}),
        of_pod("env[0].value: Invalid value: a variable has a value or comes from somewhere; give value or valueFrom"),
        "spec.pod.env[0].value"),
    Bad("a variable of the operator's", pod(env=[{"name": "PLIMSOLL_LAUNCH", "value": "{}"}]),
        of_pod("env[0].name: Invalid value: variables that begin with PLIMSOLL_ are set by the operator; use another name"),
        "spec.pod.env[0].name"),
    Bad("a variable from two places", variable(valueFrom={"secretKeyRef": SECRET, "configMapKeyRef": SECRET}),
        of_pod("env[0].valueFrom: Invalid value: give one of secretKeyRef, configMapKeyRef and fieldRef"),
        "spec.pod.env[0].valueFrom"),
    Bad("a variable from nowhere", variable(valueFrom={}),
        of_pod("env[0].valueFrom: Invalid value: give one of secretKeyRef, configMapKeyRef and fieldRef"),
        "spec.pod.env[0].valueFrom"),
    Bad("variables from nothing", pod(envFrom=[{"prefix": "A_"}]),
        of_pod("envFrom[0]: Invalid value: give one of secretRef and configMapRef"), "spec.pod.envFrom[0]"),
    Bad("a volume of nothing", volume(),
        of_pod(f"volumes[0]: Invalid value: {ONE_SOURCE}"), "spec.pod.volumes[0]"),
    Bad("a volume of two things", volume(emptyDir={}, configMap={"name": "settings"}),
        of_pod(f"volumes[0]: Invalid value: {ONE_SOURCE}"), "spec.pod.volumes[0]"),
    Bad("a volume of the operator's", pod(volumes=[{"name": "plimsoll-shm", "emptyDir": {}}]),
        of_pod("volumes[0].name: Invalid value: volumes whose names begin with plimsoll- are the operator's; use another name"),
        "spec.pod.volumes[0].name"),
    Bad("a mount of no volume", pod(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        of_pod("volumeMounts: Invalid value: each mount names one of spec.pod.volumes; add the volume, or take the mount away"),
        "spec.pod.volumeMounts"),
    Bad("a mount that leaves its volume",
        pod(volumes=[{"name": "data", "emptyDir": {}}],
            volumeMounts=[{"name": "data", "mountPath": "/data", "subPath": "a/../../etc"}]),
        of_pod("volumeMounts[0].subPath: Invalid value: a subPath stays inside its volume; begin it without a slash, and leave '..' out"),
        "spec.pod.volumeMounts[0].subPath"),
    Bad("a toleration of nothing", toleration(effect="NoSchedule"),
        of_pod("tolerations[0].operator: Invalid value: a toleration of any key needs the operator Exists; give a key, or write operator: Exists"),
        "spec.pod.tolerations[0]"),
    Bad("any value, and this one", toleration(key="team", operator="Exists", value="red"),
        of_pod("tolerations[0].value: Invalid value: Exists stands any value; leave value out"),
        "spec.pod.tolerations[0].value"),
    Bad("for an hour where nothing is timed", toleration(key="team", value="red", effect="NoSchedule", tolerationSeconds=3600),
        of_pod("tolerations[0].tolerationSeconds: Invalid value: only a NoExecute taint is stood for a time; write effect: NoExecute, or leave tolerationSeconds out"),
        "spec.pod.tolerations[0].tolerationSeconds"),
    Bad("a rank of the user's choice", job(pod={"env": [{"name": "NODE_RANK", "value": "0"}]}),
        T("spec.pod.env[0].name: Invalid value: variables of the rendezvous are set by the operator for each attempt; leave them out"),
        "spec.pod.env[0].name"),
)  # fmt: skip
"""Each fits its schema; the embedded store takes it, and the loader and the operator refuse it."""

PODS: tuple[Bad, ...] = (
    Bad("a Secret without a key", variable(valueFrom={"secretKeyRef": {"name": "hub"}}),
        M("spec.pod.env[0].valueFrom.secretKeyRef.key: Required value", LEFT_OUT),
        "spec.pod.env[0].valueFrom.secretKeyRef"),
    Bad("one environment variable twice", pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        of_pod('env[1]: Duplicate value: {"name":"A"}'), "spec.pod.env[1]"),
    Bad("two volumes in one place",
        pod(volumes=[{"name": "data", "emptyDir": {}}],
            volumeMounts=[{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/data", "readOnly": True}]),
        of_pod('volumeMounts[1]: Duplicate value: {"mountPath":"/data"}'), "spec.pod.volumeMounts[1]"),
    Bad("a mount that is no path", pod(volumes=[{"name": "data", "emptyDir": {}}], volumeMounts=[{"name": "data", "mountPath": "data"}]),
        of_pod("volumeMounts[0].mountPath: Invalid value: \"data\": spec.pod.volumeMounts[0].mountPath in body should match '^/[^:]*$'"),
        "spec.pod.volumeMounts[0].mountPath"),
    Bad("a capability that opens the host", pod(containerSecurityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        M('spec.pod.containerSecurityContext.capabilities.add[0]: Unsupported value: "SYS_ADMIN": supported values: "IPC_LOCK", "NET_BIND_SERVICE", "SYS_NICE", "SYS_PTRACE"',
          LEFT_OUT), "spec.pod.containerSecurityContext.capabilities.add[0]"),
    Bad("a user below root", pod(securityContext={"runAsUser": -1}),
        of_pod("securityContext.runAsUser: Invalid value: -1: spec.pod.securityContext.runAsUser in body should be greater than or equal to 0"),
        "spec.pod.securityContext.runAsUser"),
    Bad("memory in words", pod(resources={"memory": "much"}),
        of_pod("resources.memory: Invalid value: \"much\": spec.pod.resources.memory in body should match "
               r"'^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$'"),
        "spec.pod.resources.memory"),
    Bad("cores as a number", pod(resources={"cpu": 8}),
        M('spec.pod.resources.cpu: Invalid value: "integer": spec.pod.resources.cpu in body must be of type string: "integer"',
          LEFT_OUT), "spec.pod.resources.cpu"),
    Bad("an account in capitals", pod(serviceAccountName="Admin"),
        of_pod('serviceAccountName: Invalid value: "Admin": spec.pod.serviceAccountName in body should match '
               r"'^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$'"),
        "spec.pod.serviceAccountName"),
    Bad("an image fetched sometimes", pod(imagePullPolicy="Sometimes"),
        M('spec.pod.imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"',
          LEFT_OUT), "spec.pod.imagePullPolicy"),
    Bad("a field of a pod that is any", pod(env=[{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}}]),
        M('spec.pod.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.hostname": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "status.hostIP", "status.podIP"',
          LEFT_OUT), "spec.pod.env[0].valueFrom.fieldRef.fieldPath"),
    Bad("a label of a pod whose value has a blank", pod(labels={"team": "shop floor"}),
        of_pod("labels.team: Invalid value: \"shop floor\": spec.pod.labels.team in body should match '^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'"),
        "spec.pod.labels.team"),
)  # fmt: skip
"""Each refused by its schema."""
