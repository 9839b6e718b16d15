"""The rights of each account: enough for everything the operator does, and each rule needed by some call of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.controlplane import ControlPlane
from controller.actor.pods import engines_name
from controller.config import PodSettings
from controller.observe.caches import _SHAPES
from controller.resources.core import LEASE, SERVICE
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from tests.cluster.operating import Cluster, Right, config_of, operating
from tests.cluster.test_pods import here
from tests.repository.tree import ROOT
from tests.scenarios.props import domain, job, service

FOLDER = ROOT / "helm/plimsoll/files/rbac"
SYSTEM = "plimsoll-system"
AGENTS = "plimsoll-agents"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:plimsoll-operator"
GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}", "system:authenticated")
ELSEWHERE: dict[Right, str] = {
    (
        "authentication.k8s.io",
        "tokenreviews",
        "create",
    ): "tests/cluster/test_enrolment.py: an agent's first certificate",
    ("coordination.k8s.io", "leases", "list"): "tests/cluster/test_leadership.py: one that stands by",
    ("coordination.k8s.io", "leases", "watch"): "tests/cluster/test_leadership.py: one that stands by",
    (
        "resource.k8s.io",
        "resourceclaimtemplates",
        "create",
    ): "tests/cluster/test_devices.py: a pod claims its GPUs",
    **{
        ("", kind, verb): "tests/cluster/test_refusals.py: room is made for pods that were refused"
        for kind in ("resourcequotas", "limitranges")
        for verb in ("list", "watch")
    },
    ("", "events", "get"): "an event of that name exists: it is counted up",
    ("", "pods", "get"): "a pod of that name exists: whose is it?",
    ("apps", "controllerrevisions", "create"): "an apply that creates is authorised as one, beside the patch",
    (
        "apps",
        "controllerrevisions",
        "delete",
    ): "one more than are kept of a service: tests/scenarios/plays_rollout.py",
    ("plimsoll.dev", "modelservices", "patch"): "a finalizer of ours is taken off",
    ("plimsoll.dev", "trainingjobs", "patch"): "a finalizer of ours is taken off",
}
ELSEWHERE |= {
    (resource.group, resource.plural, "list"): "a server that offers no streaming list is listed page by page"
    for resource, _ in _SHAPES
}
ELSEWHERE |= {
    (
        "plimsoll.dev",
        f"{plural}/status",
        "get",
    ): "an object changed between cache and write: is it still this one?"
    for plural in ("acceleratorclasses", "modelservices", "powerdomains", "trainingjobs")
}
"""Rights whose call does not come in every run of the scenario below; each names where it is made."""


def documents() -> list[dict[str, Any]]:
    return [d for file in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text())]


def rules() -> list[dict[str, Any]]:
    return [rule for d in documents() if d["kind"] in ("Role", "ClusterRole") for rule in d["rules"]]


def rights() -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_no_wildcard_no_secret_and_no_right_beyond_our_own():
    for rule in rules():
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
    named = {resource for _, resource, _ in rights()}
    assert not named & {"secrets", "configmaps", "pods/exec", "serviceaccounts/token", "nodes/proxy"}
    assert not {verb for _, _, verb in rights()} & {"escalate", "bind", "impersonate", "deletecollection"}
    assert {r for r in rights() if r[1] == "nodes"} == {("", "nodes", "list"), ("", "nodes", "watch")}
    assert {verb for _, resource, verb in rights() if resource in ("modelservices", "trainingjobs")} <= {
        "get", "list", "watch", "patch",
    }  # fmt: skip


def test_agents_and_gateways_may_do_nothing():
    for name in ("agent", "gateway"):
        kinds = [d["kind"] for d in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())]
        assert kinds == ["ServiceAccount"]
    subjects = [s["name"] for d in documents() for s in d.get("subjects", ())]
    assert set(subjects) == {"plimsoll-operator"}


@pytest.fixture
def installed(new_control_plane: Any) -> ControlPlane:
    """A control plane with every account and role, strict about owner references."""
    enforced = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"
    plane: ControlPlane = new_control_plane(extra={"kube-apiserver": (enforced,)})
    for name in (SYSTEM, AGENTS, "shop"):
        plane.create_namespace(name)
    for file in sorted(FOLDER.glob("*.yaml")):
        plane.kubectl("apply", "-f", str(file))
    plane.kubectl("apply", "-f", str(ROOT / "helm/plimsoll/files/scheduling/priorityclass.yaml"))
    return plane


def operators(plane: ControlPlane) -> Path:
    return plane.kubeconfig_for(ACCOUNT, GROUPS)


async def _everything(cluster: Cluster) -> None:
    """Serve, scale, form a gang, lose a Service, delete, leave a finalizer, go: every kind of call."""
    rows = domain("row", 20_000).replace("plimsoll.dev/row: row-a", "kubernetes.io/os: linux")
    text = "\n---\n".join((service("chat", "minReplicas: 1"), job("bert", on="h100"), rows))
    await cluster.kubectl("apply", "-f", "-", stdin=here(text, "shop"))

    async def up() -> bool:
        return len(await cluster.ready()) == 3

    await cluster.until(up, "a replica and two ranks")
    await cluster.admin.delete(SERVICE, engines_name("chat"), "shop")
    bent = {"spec": {"selector": {"plimsoll.dev/service": "other"}}}
    await cluster.admin.patch(SERVICE, "bert-ranks", bent, "shop", field_manager="meddler")
    await cluster.admin.put_scale(MODEL_SERVICE, "chat", "shop", replicas=2, field_manager="user")
    await cluster.until(lambda: _count(cluster, 4), "two replicas and two ranks")
    await cluster.until(lambda: cluster.admin.get(SERVICE, engines_name("chat"), "shop"), "the Service again")
    await cluster.admin.patch(TRAINING_JOB, "bert", {"spec": {"suspend": True}}, "shop", field_manager="user")
    await cluster.until(lambda: _count(cluster, 2), "the ranks are stopped")
    await cluster.admin.put_scale(MODEL_SERVICE, "chat", "shop", replicas=0, field_manager="user")
    held = {"metadata": {"finalizers": ["plimsoll.dev/left"]}}
    await cluster.admin.patch(MODEL_SERVICE, "chat", held, "shop", field_manager="killed")
    await cluster.kubectl("delete", "tjob/bert", "--wait=false")
    await cluster.kubectl("delete", "msvc/chat", "--timeout=90s")
    await cluster.until(lambda: _count(cluster, 0), "nobody left")
    name = f"{cluster.namespace}-l4-00"
    await cluster.kubectl("delete", "node", name)

    async def forgotten() -> bool:
        return name not in (await cluster.kubectl("get", "anode", "-o", "name")).stdout

    await cluster.until(forgotten, "no AcceleratorNode of a node that is gone")


async def _count(cluster: Cluster, count: int) -> bool:
    return len(await cluster.ready()) == len(await cluster.pods()) == count


def test_the_operator_does_everything_with_exactly_its_rights_and_needs_each(installed: ControlPlane):
    async def scenario() -> None:
        config = config_of(SYSTEM, pods=PodSettings(priority_class="plimsoll"))
        who = operators(installed)
        async with operating(installed, "shop", operator=who, config=config, l4=2, h100=2) as cluster:
            await _everything(cluster)
            lease = await cluster.admin.get(LEASE, "plimsoll-operator", SYSTEM)
            assert lease["spec"]["holderIdentity"]
        assert cluster.recorder.forbidden == []
        assert cluster.rights - rights() == set(), (
            "a call that no rule of ours allows was answered all the same"
        )
        unneeded = rights() - cluster.rights - ELSEWHERE.keys()
        assert not unneeded, f"no call needs {sorted(unneeded)}"

    asyncio.run(scenario())


AGENT = f"system:serviceaccount:{AGENTS}:plimsoll-agent"
AGENT_GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{AGENTS}", "system:authenticated")
WRITES = ("create", "update", "patch", "delete", "deletecollection")
READ_BY_AGENTS = ("pods", "nodes", "secrets", "modelservices.plimsoll.dev", "acceleratornodes.plimsoll.dev")


def test_an_agents_account_can_write_nothing_and_read_nothing(installed: ControlPlane):
    who = installed.kubeconfig_for(AGENT, AGENT_GROUPS)
    for verb in (*WRITES, "get", "list", "watch"):
        for resource in READ_BY_AGENTS:
            told = installed.kubectl("auth", "can-i", verb, resource, "-A", kubeconfig=who, check=False)
            assert told.stdout.strip() == "no", f"an agent may {verb} {resource}"
    granted = installed.kubectl("auth", "can-i", "--list", "--no-headers", kubeconfig=who).stdout
    for line in granted.splitlines():
        assert "[]" in line or "selfsubject" in line, line
        verbs = line.rpartition("[")[2].rstrip("] ").split()
        assert set(verbs) <= {"get", "create"}, line
        assert "create" not in verbs or line.startswith("self"), line
