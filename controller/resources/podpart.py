"""The user's part of a pod: what a ModelService or TrainingJob may say about the pods made for it.

A reduced pod template: fields are named and nested as Kubernetes has them, and those that would take a pod out of the
operator's hands (where it runs, its devices, its host) or out of the level `restricted` are not there. What runs stands
beside it, as `spec.image`, `spec.command` and `spec.args`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from controller.resources.base import (
    LABEL_PATTERN,
    NAME_PATTERN,
    SUBDOMAIN_PATTERN,
    ApiStruct,
    about,
    entries,
    items,
    text,
    whole,
)

RESERVED_VARIABLES = "PLIMSOLL_"
"""Prefix of the variables that the operator sets."""
RESERVED_VOLUMES = "plimsoll-"
"""Prefix of the names of volumes that the operator adds."""

KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"
VARIABLE_PATTERN = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
MOUNT_PATTERN = r"^/[^:]*$"
TAINT_PATTERN = r"^([A-Za-z0-9][-A-Za-z0-9_./]*)?$"

_PLACED = "where pods run is decided by the operator; choose products by spec.accelerators"
_ONE = "a pod has one container, which spec.image, spec.command and spec.args describe"
_HOST = "pods keep off their host"
_SET = "the operator sets it"
UNSUPPORTED: dict[str, str] = {
    "affinity": _PLACED,
    "args": "write it as spec.args",
    "automountServiceAccountToken": "a token is mounted where serviceAccountName is lent, and nowhere else",
    "command": "write it as spec.command",
    "containers": _ONE,
    "hostIPC": _HOST,
    "hostNetwork": _HOST,
    "hostPID": _HOST,
    "hostUsers": _HOST,
    "hostname": _SET,
    "image": "write it as spec.image",
    "initContainers": _ONE,
    "lifecycle": _SET,
    "metadata": "write spec.pod.labels and spec.pod.annotations",
    "nodeName": _PLACED,
    "nodeSelector": _PLACED,
    "priority": "name a class in priorityClassName",
    "readinessProbe": _SET,
    "restartPolicy": _SET,
    "schedulerName": _PLACED,
    "spec": "write its fields directly below spec.pod",
    "template": "spec.pod is the reduced template; write its fields directly below it",
    "terminationGracePeriodSeconds": "write spec.drainSeconds for a service, spec.checkpoint for a job",
    "topologySpreadConstraints": _PLACED,
}
"""Fields of a pod, or of its container, that users look for in `spec.pod`, and what to do instead."""

MOST_WORDS = 64
Word = Annotated[str, text("One word, as the program gets it.", 4_096)]
Words = list[Word]

SecretName = Annotated[str, text("Name of a Secret of the same namespace.", 253, 1, SUBDOMAIN_PATTERN)]
ConfigMapName = Annotated[str, text("Name of a ConfigMap of the same namespace.", 253, 1, SUBDOMAIN_PATTERN)]
Quantity = Annotated[str, text("Kubernetes quantity, in quotation marks.", 20, 1, QUANTITY_PATTERN)]


class SecretKey(ApiStruct, frozen=True, kw_only=True):
    """One key of a Secret. The operator never reads it; the node's kubelet does."""

    name: SecretName
    key: Annotated[str, text("The key in it.", 253, 1, KEY_PATTERN)]
    optional: Annotated[bool, about("Start without the variable where there is no such key.")] = False


class ConfigMapKey(ApiStruct, frozen=True, kw_only=True):
    """One key of a ConfigMap."""

    name: ConfigMapName
    key: Annotated[str, text("The key in it.", 253, 1, KEY_PATTERN)]
    optional: Annotated[bool, about("Start without the variable where there is no such key.")] = False


class FieldOfPod(ApiStruct, frozen=True, kw_only=True):
    """What the pod is, told to its program."""

    field_path: Annotated[
        Literal[
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
            "spec.nodeName",
            "status.hostIP",
            "status.podIP",
        ],
        about("Which field of the pod."),
    ]


class VariableSource(ApiStruct, frozen=True, kw_only=True):
    """Where a variable's value comes from: one of these."""

    secret_key_ref: Annotated[SecretKey, about("A key of a Secret.")] | None = None
    config_map_key_ref: Annotated[ConfigMapKey, about("A key of a ConfigMap.")] | None = None
    field_ref: Annotated[FieldOfPod, about("A field of the pod itself.")] | None = None


class Variable(ApiStruct, frozen=True, kw_only=True):
    """One environment variable: by value or from somewhere."""

    name: Annotated[
        str,
        text(f"Name; those with {RESERVED_VARIABLES} are the operator's own.", 253, 1, VARIABLE_PATTERN),
    ]
    value: Annotated[str, text("Its value.", 16_384)] = ""
    value_from: Annotated[VariableSource, about("Where its value comes from, instead of `value`.")] | None = (
        None
    )


class SecretSource(ApiStruct, frozen=True, kw_only=True):
    """A whole Secret."""

    name: SecretName
    optional: Annotated[bool, about("Start without it where there is none.")] = False


class ConfigMapSource(ApiStruct, frozen=True, kw_only=True):
    """A whole ConfigMap."""

    name: ConfigMapName
    optional: Annotated[bool, about("Start without it where there is none.")] = False


class VariablesSource(ApiStruct, frozen=True, kw_only=True):
    """All keys of a Secret or a ConfigMap as variables: one of the two."""

    prefix: Annotated[str, text("Put before each key.", 64, 0, r"^([-._a-zA-Z][-._a-zA-Z0-9]*)?$")] = ""
    secret_ref: Annotated[SecretSource, about("The Secret.")] | None = None
    config_map_ref: Annotated[ConfigMapSource, about("The ConfigMap.")] | None = None


class PullSecret(ApiStruct, frozen=True, kw_only=True):
    """A Secret with the password of a registry."""

    name: SecretName


class ClaimVolume(ApiStruct, frozen=True, kw_only=True):
    """A PersistentVolumeClaim of the same namespace; pods only go where its volume can be reached."""

    claim_name: Annotated[str, text("Name of the PersistentVolumeClaim.", 253, 1, SUBDOMAIN_PATTERN)]
    read_only: Annotated[bool, about("Whether no pod may write to it.")] = False


class EmptyVolume(ApiStruct, frozen=True, kw_only=True):
    """A folder that begins empty and ends with the pod."""

    medium: Annotated[Literal["", "Memory"], about("Memory keeps it in the node's memory.")] = ""
    size_limit: Annotated[Quantity, about("Most it may hold; a pod that exceeds it is evicted.")] | None = (
        None
    )


class ConfigMapVolume(ApiStruct, frozen=True, kw_only=True):
    """The keys of a ConfigMap as files."""

    name: ConfigMapName
    optional: Annotated[bool, about("Start with an empty folder where there is none.")] = False


class SecretVolume(ApiStruct, frozen=True, kw_only=True):
    """The keys of a Secret as files."""

    secret_name: SecretName
    optional: Annotated[bool, about("Start with an empty folder where there is none.")] = False


class Volume(ApiStruct, frozen=True, kw_only=True):
    """Files for the program: a name and one source."""

    name: Annotated[
        str,
        text(f"Name; those with {RESERVED_VOLUMES} are the operator's own.", 63, 1, NAME_PATTERN),
    ]
    persistent_volume_claim: Annotated[ClaimVolume, about("A PersistentVolumeClaim.")] | None = None
    empty_dir: Annotated[EmptyVolume, about("A folder of the pod's own.")] | None = None
    config_map: Annotated[ConfigMapVolume, about("A ConfigMap.")] | None = None
    secret: Annotated[SecretVolume, about("A Secret.")] | None = None


class VolumeMount(ApiStruct, frozen=True, kw_only=True):
    """Where a volume appears."""

    name: Annotated[str, text("Which of the volumes.", 63, 1, NAME_PATTERN)]
    mount_path: Annotated[str, text("Folder in the container.", 512, 1, MOUNT_PATTERN)]
    sub_path: Annotated[str, text("Folder in the volume; empty means its root.", 512)] = ""
    read_only: Annotated[bool, about("Whether it cannot be written to.")] = False


class PodSecurity(ApiStruct, frozen=True, kw_only=True):
    """As whom the program runs. What is absent is as the operator is set: not root, seccomp as the runtime has it."""

    run_as_user: (
        Annotated[int, whole("Numeric user; 0 is root, which the level `restricted` refuses.", 0, 2**31 - 1)]
        | None
    ) = None
    run_as_group: Annotated[int, whole("Numeric group.", 0, 2**31 - 1)] | None = None
    fs_group: Annotated[int, whole("Group that owns what is mounted.", 0, 2**31 - 1)] | None = None
    fs_group_change_policy: (
        Annotated[
            Literal["OnRootMismatch", "Always"],
            about("When a volume's files are given to `fsGroup`; OnRootMismatch is quick on large ones."),
        ]
        | None
    ) = None
    supplemental_groups: Annotated[
        list[Annotated[int, whole("Numeric group.", 0, 2**31 - 1)]], items("Further groups.", 16)
    ] = []


class Capabilities(ApiStruct, frozen=True, kw_only=True):
    """Linux capabilities; all others are dropped."""

    add: Annotated[
        list[Literal["IPC_LOCK", "NET_BIND_SERVICE", "SYS_NICE", "SYS_PTRACE"]],
        items("Capabilities to have; `restricted` allows NET_BIND_SERVICE alone.", 4, unique=True),
    ] = []


class ContainerSecurity(ApiStruct, frozen=True, kw_only=True):
    """What the container may do. Privileges are never gained, and there is no privileged mode."""

    read_only_root_filesystem: Annotated[bool, about("Whether only volumes can be written to.")] = False
    capabilities: Annotated[Capabilities, about("Linux capabilities.")] = Capabilities()


class Toleration(ApiStruct, frozen=True, kw_only=True):
    """A taint that the pods stand: nodes with it are open to this object, and to no other."""

    key: Annotated[str, text("Key of the taint; empty, with Exists, means any.", 253, 0, TAINT_PATTERN)] = ""
    operator: Annotated[Literal["Equal", "Exists"], about("Exists stands any value of the taint.")] = "Equal"
    value: Annotated[str, text("Value of the taint.", 63, 0, LABEL_PATTERN)] = ""
    effect: Annotated[
        Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"], about("Effect of it; empty means any.")
    ] = ""
    toleration_seconds: (
        Annotated[int, whole("How long a NoExecute taint is stood; absent means for ever.", 0, 2**31 - 1)]
        | None
    ) = None


class PodResources(ApiStruct, frozen=True, kw_only=True):
    """What one pod asks for beside its GPUs, as request and limit alike."""

    cpu: Annotated[Quantity, about('Cores, such as "8" or "7500m".')] | None = None
    memory: Annotated[Quantity, about('Memory, such as "64Gi".')] | None = None


class PodPart(ApiStruct, frozen=True, kw_only=True):
    """The user's part of each pod; what runs in it is said by `image`, `command` and `args` beside it."""

    labels: Annotated[
        dict[str, Annotated[str, text("Value of the label.", 63, 0, LABEL_PATTERN)]],
        entries("Further labels of the pods; those of plimsoll.dev are the operator's.", 32),
    ] = {}
    annotations: Annotated[
        dict[str, Annotated[str, text("Value of the annotation.", 4_096)]],
        entries("Further annotations of the pods; those of plimsoll.dev are the operator's.", 32),
    ] = {}
    env: Annotated[list[Variable], items("Environment variables, each once.", 128, keys=("name",))] = []
    env_from: Annotated[
        list[VariablesSource], items("Secrets and ConfigMaps whose keys are variables.", 16)
    ] = []
    image_pull_policy: (
        Annotated[
            Literal["Always", "IfNotPresent", "Never"],
            about("When the image is fetched; absent means as Kubernetes does by its tag."),
        ]
        | None
    ) = None
    image_pull_secrets: Annotated[
        list[PullSecret], items("Secrets with passwords of registries.", 8, keys=("name",))
    ] = []
    volumes: Annotated[list[Volume], items("Volumes, each by one source.", 16, keys=("name",))] = []
    volume_mounts: Annotated[
        list[VolumeMount], items("Where the volumes appear in the container.", 32, keys=("mountPath",))
    ] = []
    security_context: Annotated[PodSecurity, about("As whom the program runs.")] = PodSecurity()
    container_security_context: Annotated[ContainerSecurity, about("What the container may do.")] = (
        ContainerSecurity()
    )
    tolerations: Annotated[list[Toleration], items("Taints that the pods stand.", 16)] = []
    priority_class_name: Annotated[
        str,
        text(
            "PriorityClass of the pods; empty means the operator's.",
            253,
            0,
            rf"^({SUBDOMAIN_PATTERN[1:-1]})?$",
        ),
    ] = ""
    service_account_name: Annotated[
        str,
        text(
            "ServiceAccount of the pods; empty means the namespace's `default`. Another one must be in the operator's "
            "own list.",
            253,
            0,
            rf"^({SUBDOMAIN_PATTERN[1:-1]})?$",
        ),
    ] = ""
    resources: Annotated[PodResources, about("CPU and memory of each pod.")] = PodResources()


class Wish(NamedTuple):
    """What the user says about the pods of an object: what runs in them, and the part around it.

    A change of any of it is a change of the pods.
    """

    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    pod: PodPart = PodPart()


def wish_of(spec: Any) -> Wish:
    """The wish in the spec of a ModelService or TrainingJob."""
    return Wish(spec.image, tuple(spec.command), tuple(spec.args), spec.pod)
