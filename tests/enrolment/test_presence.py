"""Whether a token's pod counts as there, case by case, over a store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.enrolment.claims import Bound
from controller.enrolment.presence import OLD_SECONDS, WatchedPresence
from controller.resources.core import NAMESPACE as NAMESPACES
from controller.resources.core import NODE, POD
from controller.store.embedded import open_store
from runtime.clock import VirtualClock
from tests.hub.support import ORIGIN, run

NAMESPACE = "plimsoll-agents"


def pod(name: str = "agent-1", **spec: Any) -> dict[str, Any]:
    container = {"name": "agent", "image": "agent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [container], "nodeName": "n1"} | spec,
    }


CASES = [
    pytest.param({}, "", id="all as the token says"),
    pytest.param({"node": "n9"}, "no node 'n9'", id="a node that is not there"),
    pytest.param({"node_uid": "other"}, "no node 'n1' of the token's uid", id="a node of the same name"),
    pytest.param({"pod": "agent-9"}, "no pod plimsoll-agents/agent-9", id="a pod that is not there"),
    pytest.param({"pod_uid": "other"}, "of the token's uid", id="a pod of the same name"),
    pytest.param({"pod": "agent-2"}, "is on 'n2', not on 'n1'", id="a pod that is elsewhere"),
    pytest.param({"pod": "agent-3"}, "is leaving", id="a pod that has ended"),
    pytest.param({"pod": "agent-4"}, "is leaving", id="a pod that is being deleted"),
]


@pytest.mark.parametrize(("changed", "says"), CASES)
def test_whether_a_tokens_pod_is_there(changed: dict[str, str], says: str):
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        store = open_store(clock, seed=1)
        uids = {}
        home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await store.create(NAMESPACES, home, field_manager="t")
        for name in ("n1", "n2"):
            made = await store.create(
                NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}, field_manager="t"
            )
            uids[name] = made["metadata"]["uid"]
        for name, spec in {
            "agent-1": {},
            "agent-2": {"nodeName": "n2"},
            "agent-3": {},
            "agent-4": {},
        }.items():
            uids[name] = (await store.create(POD, pod(name, **spec), field_manager="t"))["metadata"]["uid"]
        await store.patch(
            POD,
            "agent-3",
            {"status": {"phase": "Succeeded"}},
            NAMESPACE,
            field_manager="t",
            subresource="status",
        )
        await store.delete(POD, "agent-4", NAMESPACE)
        presence = WatchedPresence(store, NAMESPACE, clock)
        bound = Bound(
            node="n1", node_uid=uids["n1"], namespace=NAMESPACE, pod="agent-1", pod_uid=uids["agent-1"]
        )
        assert "has not read" in presence.missing(bound)
        await presence.pump()
        bound = msgspec.structs.replace(bound, **changed)
        if "pod" in changed and changed["pod"] in uids:
            bound = msgspec.structs.replace(bound, pod_uid=uids[changed["pod"]])
        told = presence.missing(bound)
        assert says in told
        assert bool(says) == bool(told)
        clock.advance_to(ORIGIN + OLD_SECONDS + 1)
        assert "heard nothing of nodes" in presence.missing(bound)
        presence.close()

    run(scenario)
