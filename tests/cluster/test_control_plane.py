"""The control plane of development: real, not laxer than a cluster, and gone without a trace when it stops."""

import json

from console.controlplane import ControlPlane


def test_kubectl_and_server_say_the_version_that_was_pinned(control_plane: ControlPlane):
    told = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    assert told["serverVersion"]["gitVersion"] == "v1.36.3"
    assert told["clientVersion"]["gitVersion"] == "v1.36.3"


def test_a_namespace_takes_pods_at_once(control_plane: ControlPlane, namespace: str):
    control_plane.kubectl("-n", namespace, "run", "pod", "--image=example.org/none")
