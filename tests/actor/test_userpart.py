"""What the user says about pods, laid into them: theirs where it is theirs, ours where it is ours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.actions import CreateReplica, StartGang
from cluster.base import Ref
from cluster.hardware import Slot
from cluster.serving import Objective, Service
from cluster.training import Job, Layout
from controller.actor.pods import DEFAULTS, gang_pods, replica_pod
from controller.config import PodSettings
from controller.observe import intents, labels
from controller.resources.podpart import PodPart, Wish, wish_of
from tests.observe import objects as made
from tests.observe.objects import L4, MODEL, SHAPE, accelerator

CLASS = intents.accelerator(accelerator())[0]
SLOT = Slot(node="n1", devices=(0,))
PLAIN = Wish()
Json = dict[str, Any]


def part(**fields: Any) -> Wish:
    """A wish with this part of the pod."""
    return Wish(pod=msgspec.convert(fields, PodPart))


def replica(wish: Wish = PLAIN, settings: PodSettings = DEFAULTS) -> Json:
    chat = Service(
        ref=Ref("ModelService", "shop/chat", "u", 3), model=MODEL, variants=(L4,),
        objectives=(Objective(ttft_seconds=1.0, tpot_seconds=1.0),),
    )  # fmt: skip
    action = CreateReplica(
        service=chat.name, name="shop/chat-l4-1", variant=L4, pool="p", ordinal=1, slots=(SLOT,), reason=0
    )
    return replica_pod(action, chat, CLASS, wish, settings)


def rank(wish: Wish = PLAIN) -> Json:
    bert = Job(
        ref=Ref("TrainingJob", "lab/bert", "u", 3), shape=SHAPE, steps=5, global_batch=4, micro_batch=1,
        min_nodes=1, max_nodes=1, gpus_per_node=1,
    )  # fmt: skip
    action = StartGang(job=bert.ref, attempt=1, layout=Layout(data=1, slots=(SLOT,)), reason=0)
    return gang_pods(action, bert, CLASS, wish, 0)[0]


def at(pod: Json, path: str) -> Any:
    """A dotted path; `c` at its beginning is the container."""
    value: Any = pod["spec"]["containers"][0] if path.startswith("c.") else pod
    for name in path.removeprefix("c.").split("."):
        value = value.get(name)
    return value


SECRET = {"secretKeyRef": {"name": "hub", "key": "token"}}
LAID = [
    ("a label", part(labels={"team": "red"}), "metadata.labels.team", "red"),
    ("an annotation", part(annotations={"note": "x"}), "metadata.annotations.note", "x"),
    ("what is fetched with which password", part(imagePullSecrets=[{"name": "reg"}]), "spec.imagePullSecrets", [{"name": "reg"}]),
    ("when it is fetched", part(imagePullPolicy="Always"), "c.imagePullPolicy", "Always"),
    ("nothing said of when", part(), "c.imagePullPolicy", None),
    ("a command", Wish(command=("serve", "--fast")), "c.command", ["serve", "--fast"]),
    ("arguments", Wish(args=("--tp", "2")), "c.args", ["--tp", "2"]),
    ("whole Secrets", part(envFrom=[{"prefix": "A_", "secretRef": {"name": "s", "optional": True}}]),
     "c.envFrom", [{"prefix": "A_", "secretRef": {"name": "s", "optional": True}}]),
    ("a claim", part(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]),
     "spec.volumes", [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]),
    ("an empty folder says itself", part(volumes=[{"name": "d", "emptyDir": {}}]), "spec.volumes", [{"name": "d", "emptyDir": {}}]),
    ("a folder in memory", part(volumes=[{"name": "d", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]),
     "spec.volumes", [{"name": "d", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]),
    ("a mount", part(volumeMounts=[{"name": "d", "mountPath": "/d", "readOnly": True}]),
     "c.volumeMounts", [{"name": "d", "mountPath": "/d", "readOnly": True}]),
    ("another user is not root either", part(securityContext={"runAsUser": 1000}), "spec.securityContext.runAsNonRoot", True),
    ("another user", part(securityContext={"runAsUser": 1000}), "spec.securityContext.runAsUser", 1000),
    ("root says so", part(securityContext={"runAsUser": 0}), "spec.securityContext.runAsNonRoot", False),
    ("root's group is root's", part(securityContext={"runAsUser": 0}), "spec.securityContext.runAsGroup", 0),
    ("a group of files", part(securityContext={"fsGroup": 7}), "spec.securityContext.fsGroup", 7),
    ("seccomp stays", part(securityContext={"fsGroup": 7}), "spec.securityContext.seccompProfile", {"type": "RuntimeDefault"}),
    ("a capability beside none", part(containerSecurityContext={"capabilities": {"add": ["IPC_LOCK"]}}),
     "c.securityContext.capabilities", {"drop": ["ALL"], "add": ["IPC_LOCK"]}),
    ("no privilege is gained", part(containerSecurityContext={"readOnlyRootFilesystem": True}),
     "c.securityContext.allowPrivilegeEscalation", False),
    ("only volumes are written to", part(containerSecurityContext={"readOnlyRootFilesystem": True}),
     "c.securityContext.readOnlyRootFilesystem", True),
    ("a class of priority", part(priorityClassName="gold"), "spec.priorityClassName", "gold"),
    ("the namespace's account", part(), "spec.serviceAccountName", None),
    ("no token of it", part(), "spec.automountServiceAccountToken", False),
    ("default is said as nothing", part(serviceAccountName="default"), "spec.automountServiceAccountToken", False),
    ("an account that is lent", part(serviceAccountName="trainer"), "spec.serviceAccountName", "trainer"),
    ("with its token", part(serviceAccountName="trainer"), "spec.automountServiceAccountToken", True),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "path", "wanted"), [row[1:] for row in LAID], ids=[row[0] for row in LAID])
@pytest.mark.parametrize("make", [replica, rank], ids=["replica", "rank"])
def test_the_users_part_is_in_every_pod(make: Any, wish: Wish, path: str, wanted: Any) -> None:
    assert at(make(wish), path) == wanted


@pytest.mark.parametrize("make", [replica, rank], ids=["replica", "rank"])
def test_variables_of_the_user_come_after_ours_and_may_name_them(make: Any) -> None:
    wanted = [{"name": "WHO", "value": "$(RANK)"}, {"name": "TOKEN", "valueFrom": SECRET}]
    env = at(make(part(env=wanted)), "c.env")
    assert env[0]["name"] == "PLIMSOLL_LAUNCH"
    assert env[-2:] == wanted


@pytest.mark.parametrize("make", [replica, rank], ids=["replica", "rank"])
def test_tolerations_of_the_user_come_beside_ours(make: Any) -> None:
    wanted = [{"key": "team", "operator": "Equal", "value": "red", "effect": "NoSchedule"}]
    before, after = (at(make(wish), "spec.tolerations") for wish in (Wish(), part(tolerations=wanted)))
    assert after == [*before, *wanted]


def test_a_label_of_ours_stays_ours() -> None:
    pod = replica(part(labels={labels.SERVICE: "other", labels.MANAGED_BY: "me"}))
    assert pod["metadata"]["labels"][labels.SERVICE] == "chat"
    assert pod["metadata"]["labels"][labels.MANAGED_BY] == "plimsoll"


def test_a_class_of_priority_of_the_users_comes_before_the_operators() -> None:
    settings = PodSettings(priority_class="plimsoll")
    assert replica(Wish(), settings)["spec"]["priorityClassName"] == "plimsoll"
    assert replica(part(priorityClassName="gold"), settings)["spec"]["priorityClassName"] == "gold"
    assert "priorityClassName" not in replica()["spec"]


def test_the_wish_of_an_object_is_all_that_its_spec_says_of_pods() -> None:
    spec = made.job(command=["train"], args=["-v"], image="i", pod={"labels": {"a": "b"}}).spec
    assert wish_of(spec) == Wish("i", ("train",), ("-v",), PodPart(labels={"a": "b"}))


LENT = [
    ("the namespace's own", "", (), True),
    ("the same, by its name", "default", (), True),
    ("one of the list", "trainer", ("shop/trainer",), True),
    ("one of another namespace's list", "trainer", ("lab/trainer",), False),
    ("one of no list", "admin", ("shop/trainer",), False),
]


@pytest.mark.parametrize(("name", "lent", "taken"), [row[1:] for row in LENT], ids=[row[0] for row in LENT])
def test_only_accounts_of_the_operators_list_are_lent(name: str, lent: tuple[str, ...], taken: bool) -> None:
    play = made.Play(made.service(pod={"serviceAccountName": name}), accounts=lent)
    assert ("shop/chat" in play.live("services")) == taken
    said = " ".join(play.world.faults.get(("ModelService", "shop/chat"), ()))
    assert (f"spec.pod.serviceAccountName: '{name}' is not lent" in said) != taken
