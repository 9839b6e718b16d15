"""The control plane of development: real, not laxer than a cluster, broken and mended, gone without a trace."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.controlplane import Component, ControlPlane, ControlPlaneError
from console.controlplane.ask import Answer, Unreachable
from console.controlplane.components import arguments
from console.controlplane.processes import state

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def manifest(kind: str, name: str, **more: Any) -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more})


# ------------------------------------------------------------------------------------------------- it is the real one


def test_kubectl_and_server_say_the_version_that_was_pinned(control_plane: ControlPlane):
    told = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    assert told["serverVersion"]["gitVersion"] == "v1.36.3"
    assert told["clientVersion"]["gitVersion"] == "v1.36.3"


def test_a_namespace_takes_pods_at_once(control_plane: ControlPlane, namespace: str):
    control_plane.kubectl("-n", namespace, "run", "pod", "--image=example.org/none")
    pod = control_plane.api.ask("GET", f"/api/v1/namespaces/{namespace}/pods/pod")
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert [each["mountPath"] for each in mounts] == ["/var/run/secrets/kubernetes.io/serviceaccount"]


SLACK = [
    "--disable-admission-plugins",
    "--admission-control",
    "--enable-priority-and-fairness",
    "--feature-gates",
    "--runtime-config",
    "--endpoint-reconciler-type",
    "--max-requests-inflight",
    "--authorization-mode=AlwaysAllow",
    "--anonymous-auth",
    "--insecure",
]


@pytest.mark.parametrize("component", list(Component), ids=str)
def test_no_flag_makes_it_laxer_than_a_cluster(control_plane: ControlPlane, component: Component):
    flags = arguments(component, control_plane.site)
    running = Path(f"/proc/{control_plane.pids[component]}/cmdline").read_bytes().decode().split("\0")
    assert running[1:-1] == flags
    assert not [flag for flag in flags for slack in SLACK if flag.startswith(slack)]
    assert not [flag for flag in flags if flag.startswith("--controllers=") and flag != "--controllers=*"]


def test_requests_are_ordered_by_priority_and_fairness(control_plane: ControlPlane):
    context = ssl.create_default_context(cafile=str(control_plane.authority))
    context.load_cert_chain(str(control_plane.admin.certificate), str(control_plane.admin.key))
    port = control_plane.site.ports[Component.API_SERVER]
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    connection.request("GET", "/api/v1/namespaces")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.headers["X-Kubernetes-PF-FlowSchema-UID"]


def test_a_user_has_no_rights_that_nobody_gave(control_plane: ControlPlane, namespace: str):
    stranger = control_plane.kubeconfig_for("stranger", ["readers"], namespace)
    refused = control_plane.kubectl("get", "pods", kubeconfig=stranger, check=False)
    assert 'User "stranger" cannot list resource "pods"' in refused.stderr
    control_plane.kubectl(
        "-n", namespace, "create", "rolebinding", "readers", "--clusterrole=view", "--group=readers"
    )
    assert "No resources found" in control_plane.kubectl("get", "pods", kubeconfig=stranger).stderr


def test_nobody_blocks_the_deletion_of_what_he_may_not_finalise(control_plane: ControlPlane, namespace: str):
    owner = json.loads(
        control_plane.kubectl("-n", namespace, "create", "configmap", "owner", "-o", "json").stdout
    )
    control_plane.kubectl(
        "-n", namespace, "create", "role", "makers", "--verb=create,get", "--resource=secrets"
    )
    control_plane.kubectl("-n", namespace, "create", "rolebinding", "makers", "--role=makers", "--user=maker")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "owned", "ownerReferences": [{**reference, "blockOwnerDeletion": True}]},
    }
    maker = control_plane.kubeconfig_for("maker", namespace=namespace)
    refused = control_plane.kubectl(
        "create", "-f", "-", stdin=json.dumps(owned), kubeconfig=maker, check=False
    )
    assert "cannot set blockOwnerDeletion" in refused.stderr


def test_a_kubelet_writes_no_node_but_its_own(control_plane: ControlPlane):
    kubelet = control_plane.kubeconfig_for("system:node:mine", ["system:nodes"])
    refused = control_plane.kubectl(
        "create", "-f", "-", stdin=manifest("Node", "another"), kubeconfig=kubelet, check=False
    )
    assert 'node "mine" is not allowed to modify node "another"' in refused.stderr


def test_what_its_owner_leaves_behind_is_collected(control_plane: ControlPlane, namespace: str):
    path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
    control_plane.kubectl("-n", namespace, "create", "deployment", "web", "--image=example.org/none")
    until(lambda: control_plane.api.ask("GET", path)["items"], "a replica set of the deployment")
    control_plane.kubectl("-n", namespace, "delete", "deployment", "web", "--wait=false")
    until(lambda: not control_plane.api.ask("GET", path)["items"], "the replica set collected")


def test_a_deleted_namespace_goes_with_everything_in_it(control_plane: ControlPlane):
    control_plane.create_namespace("short-lived")
    control_plane.kubectl("-n", "short-lived", "create", "configmap", "something")
    control_plane.kubectl("delete", "namespace", "short-lived", "--wait=true", "--timeout=60s")
    with pytest.raises(Answer) as gone:
        control_plane.api.ask("GET", "/api/v1/namespaces/short-lived")
    assert gone.value.status == 404


# ------------------------------------------------------------------------------------------------- faults on purpose


def test_a_killed_api_server_comes_back_on_its_port_with_what_it_knew(
    control_plane: ControlPlane, namespace: str
):
    control_plane.kubectl("-n", namespace, "create", "configmap", "kept")
    server, pid = control_plane.server, control_plane.pids[Component.API_SERVER]
    control_plane.kill(Component.API_SERVER)
    with pytest.raises(Unreachable, match="refused"):
        control_plane.api.ask("GET", "/readyz")
    assert str(control_plane.died()).startswith("kube-apiserver ended with -9")
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", control_plane.site.ports[Component.API_SERVER]))
    control_plane.spawn(Component.API_SERVER)
    control_plane.wait_ready()
    assert control_plane.server == server
    assert control_plane.pids[Component.API_SERVER] != pid
    control_plane.kubectl("-n", namespace, "get", "configmap", "kept")


def test_a_paused_component_keeps_its_connections_and_does_not_answer(control_plane: ControlPlane):
    control_plane.pause(Component.API_SERVER)
    with pytest.raises(Unreachable, match="timed out"):
        control_plane.api.ask("GET", "/readyz", timeout_seconds=0.5)
    control_plane.resume(Component.API_SERVER)
    control_plane.wait_ready(Component.API_SERVER)


def test_mending_continues_what_is_paused_and_starts_what_has_ended(control_plane: ControlPlane):
    assert control_plane.mend() == []
    control_plane.pause(Component.CONTROLLER_MANAGER)
    control_plane.kill(Component.SCHEDULER)
    with pytest.raises(ControlPlaneError, match="kube-scheduler does not run"):
        control_plane.kill(Component.SCHEDULER)
    with pytest.raises(ControlPlaneError, match="etcd runs already"):
        control_plane.spawn(Component.ETCD)
    until(lambda: state(control_plane.pids[Component.CONTROLLER_MANAGER]) == "T", "stopped")
    assert control_plane.mend() == [Component.CONTROLLER_MANAGER, Component.SCHEDULER]
    assert control_plane.ready()


def test_a_revision_from_before_a_compaction_is_gone(control_plane: ControlPlane, namespace: str):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    old = control_plane.api.ask("GET", path)["metadata"]["resourceVersion"]
    control_plane.kubectl("-n", namespace, "create", "configmap", "later")
    exactly = f"{path}?resourceVersion={old}&resourceVersionMatch=Exact"
    before = {each["metadata"]["name"] for each in control_plane.api.ask("GET", exactly)["items"]}
    assert control_plane.compact() > int(old)
    control_plane.restart(Component.API_SERVER)
    assert "later" not in before
    with pytest.raises(Answer) as gone:
        control_plane.api.ask("GET", exactly)
    assert gone.value.status == 410


# ------------------------------------------------------------------------------------------------- start and end


def processes_of(folder: str) -> list[str]:
    """Running processes that have this folder in their command line."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if folder in command and state(int(each.name)) not in {"Z", ""}:
            found.append(f"{each.name} {command[:200]}")
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """What `make cluster` runs, and what it says when it is ready."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "console.controlplane", "up", "-o", "json", "--pki", "none", *options],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
                env={**os.environ, "TMPDIR": str(tmp_path)},
            )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, (tmp_path / "log").read_text()
        return process, json.loads(said)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("sent", "ends_with"),
    [
        pytest.param(signal.SIGINT, 0, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 0, id="asked to end", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, id="kill -9 of the launcher"),
    ],
)
def test_nothing_is_left_of_a_cluster_however_it_ends(cluster, tmp_path: Path, sent: int, ends_with: int):
    process, told = cluster("--nodes", "2")
    assert told["nodes"] == 2
    assert len(processes_of(str(tmp_path))) == 5  # the four and their guardian
    assert Path(told["KUBECONFIG"]).is_relative_to(tmp_path)
    process.send_signal(sent)
    assert process.wait(PATIENCE_SECONDS) == ends_with
    until(lambda: not processes_of(str(tmp_path)), "every process ended")
    until(lambda: [each.name for each in tmp_path.iterdir()] == ["log"], "the folder removed")


def test_a_clusters_fleet_runs_the_pods_that_the_stock_scheduler_places(cluster):
    _, told = cluster("--nodes", "2", "--gpus", "4", "--start-seconds", "1")
    kubectl = [told["kubectl"], "--kubeconfig", told["KUBECONFIG"]]

    def ask(*words: str, stdin: str = "") -> str:
        return subprocess.run(
            [*kubectl, *words], input=stdin, capture_output=True, text=True, check=True
        ).stdout

    def phases() -> list[str]:
        return [each["status"]["phase"] for each in json.loads(ask("get", "pods", "-o", "json"))["items"]]

    assert told["agents"] == "none"  # there are no certificates for them
    assert len(ask("api-resources", "--api-group=plimsoll.dev", "-o", "name").split()) == 5
    ask("get", "namespace", "plimsoll-system")
    ask("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    gpus = {"limits": {"nvidia.com/gpu": 1}}
    pod = {"containers": [{"name": "engine", "image": "example.org/none", "resources": gpus}]}
    labels = {"app": "web"}
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    ask("apply", "-f", "-", stdin=manifest("Deployment", "web", apiVersion="apps/v1", spec=spec))
    ask("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    assert phases() == ["Running"] * 3
    ask("delete", "deployment", "web")
    until(lambda: not phases(), "the pods gone")


@pytest.mark.slow
def test_a_cluster_ends_when_a_component_dies_and_says_which(cluster, tmp_path: Path):
    process, _ = cluster("--nodes", "0")
    (etcd,) = [line for line in processes_of(str(tmp_path)) if "/etcd --" in line]
    os.kill(int(etcd.split()[0]), signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) == 2
    assert "etcd ended with -9" in (tmp_path / "log").read_text()
    assert not processes_of(str(tmp_path))


@pytest.mark.slow
def test_two_control_planes_share_nothing(control_plane: ControlPlane, new_control_plane):
    other = new_control_plane()
    assert not set(other.site.ports.values()) & set(control_plane.site.ports.values())
    other.create_namespace("only-here")
    with pytest.raises(Answer):
        control_plane.api.ask("GET", "/api/v1/namespaces/only-here")
    folder = str(other.site.folder)
    other.stop()
    other.stop()
    assert not processes_of(folder)
    assert not Path(folder).exists()
    with pytest.raises(ControlPlaneError, match="start it first"):
        _ = other.server


def test_a_component_that_does_not_come_up_shows_the_end_of_its_log_and_leaves_nothing(
    control_plane: ControlPlane, tmp_path: Path
):
    plane = ControlPlane(logs=tmp_path, extra={"etcd": ["--no-such-flag"]})
    with pytest.raises(ControlPlaneError, match=r"(?s)etcd ended with \d+ before.*no-such-flag"):
        plane.start()
    assert plane.pids == {}
    assert not processes_of("--no-such-flag")
