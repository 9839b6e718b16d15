"""Agents' tokens on a real API server: what it says of them, and which of them get a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography import x509
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from agent.bootstrap import BootstrapError
from console.controlplane import ControlPlane
from console.controlplane.components import Component
from controller.enrolment.claims import AUDIENCE, CLAIMS
from controller.store.kube import Access
from runtime.authority import Identity, Role, identity_of
from runtime.clock import WallClock
from simulator.fleet.enrolment import Placed, agent_pod
from tests.cluster.enrolling import AGENT, Cluster, cluster
from tests.hub.support import run, until
from tests.repository.tree import ROOT

LONG = 120.0
PATIENCE = 60.0


def test_a_fleet_gets_its_certificates_for_tokens_of_its_pods(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            nodes = await made.nodes(3)
            assert await made.enrolments.join(nodes, asyncio.Event())
            assert made.servicer.outcomes["signed"] == 3
            for node in nodes:
                found = made.enrolments.source(node)()
                certificate = x509.load_pem_x509_certificate(found.certificate_pem)
                assert identity_of(certificate) == Identity(Role.NODE, node)
                certificate.verify_directly_issued_by(
                    x509.load_pem_x509_certificate(made.authority.certificate_pem)
                )
                assert made.pods.token_file(node).stat().st_mode & 0o777 == 0o600
            # A node whose agent pod is replaced goes on with the new one's token.
            await made.pods.remove(nodes[0])
            again = await made.pods.place(nodes[0])
            await until(lambda: _sees(made, again), PATIENCE)
            await made.enrolments.bootstraps[nodes[0]].enrol()

    run(scenario, LONG)


def _sees(made: Cluster, placed: Placed) -> bool:
    """Whether the operator's watch has brought this pod."""
    found = made.presence.pods.objects.get(f"{made.namespace}/{placed.pod}")
    return found is not None and found.metadata.uid == placed.uid


def test_what_the_api_server_says_of_a_bound_token(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    """The contract that everything here rests on; a server that changes it fails this test first."""

    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            placed = await made.pods.place(node)
            review = await made.reviewer.review(made.pods.token_file(node).read_text(), AUDIENCE)
            assert review.authenticated
            assert review.audiences == (AUDIENCE,)
            assert review.username == f"system:serviceaccount:{namespace}:{AGENT}"
            uid = (await made.core.read_node(node)).metadata.uid
            claims = {name.removeprefix(CLAIMS): values for name, values in review.extra.items()}
            assert claims.pop("credential-id")[0].startswith("JTI=")
            assert claims == {
                "node-name": (node,),
                "node-uid": (uid,),
                "pod-name": (placed.pod,),
                "pod-uid": (placed.uid,),
            }
            other = await made.reviewer.review(await made.token(audiences=("else",)), AUDIENCE)
            assert not other.authenticated
            assert "audience" in other.error

    run(scenario, LONG)


async def _tenants_pod(made: Cluster, node: str) -> str:
    """A pod of the namespace's default account, on the node, asking with our audience."""
    pod = agent_pod(node, made.pods.account)
    pod["metadata"]["name"] = "tenant"
    pod["spec"]["serviceAccountName"] = "default"
    await made.core.create_namespaced_pod(made.namespace, pod)
    return await made.token(pod="tenant", account="default")


async def _waiting_pod(made: Cluster, node: str) -> str:
    """An agent's pod that no scheduler has put anywhere."""
    pod = agent_pod(node, made.pods.account)
    pod["metadata"]["name"] = "waiting"
    del pod["spec"]["nodeName"]
    pod["spec"]["schedulingGates"] = [{"name": "plimsoll.test/never"}]
    await made.core.create_namespaced_pod(made.namespace, pod)
    return await made.token(pod="waiting")


Asking = Callable[[Cluster, str, str], Awaitable[str]]
TOKENS: list[Any] = [
    pytest.param(lambda made, node, pod: made.token(), "unbound", True, id="an unbound token, which authenticates"),
    pytest.param(lambda made, node, pod: made.token(pod=node, kind="Node"), "unbound", True, id="a token bound to the node alone"),
    pytest.param(lambda made, node, pod: _waiting_pod(made, node), "unbound", True, id="a token of a pod that is on no node"),
    pytest.param(lambda made, node, pod: made.token(pod=pod, audiences=()), "wrong_audience", False, id="the pod's token for the API server"),
    pytest.param(lambda made, node, pod: made.token(pod=pod, audiences=(AUDIENCE, "somebody-else")), "wrong_audience", True, id="a token for us and for somebody else"),
    pytest.param(lambda made, node, pod: _tenants_pod(made, node), "other_account", True, id="a tenant's pod on the same node with our audience"),
]  # fmt: skip


@pytest.mark.parametrize(("asking", "reason", "authenticates"), TOKENS)
def test_a_real_token_that_is_refused(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    asking: Asking,
    reason: str,
    authenticates: bool,
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            placed = await made.pods.place(node)
            token = await asking(made, node, placed.pod)
            assert (await made.reviewer.review(token, AUDIENCE)).authenticated == authenticates
            with pytest.raises(BootstrapError) as caught:
                await made.agent(node, token).enrol()
            assert caught.value.reason == reason
            assert made.servicer.outcomes == {reason: 1}

    run(scenario, LONG)


def test_a_nodes_agent_cannot_speak_for_another_node(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            mine, other = await made.nodes(2)
            await made.pods.settle()
            await made.pods.place(mine)
            with pytest.raises(BootstrapError, match="its own node only") as caught:
                await made.agent(other, made.pods.token_file(mine).read_text()).enrol()
            assert caught.value.reason == "other_node"

    run(scenario, LONG)


def test_a_token_that_outlives_its_pod_is_refused_though_the_api_server_still_takes_it(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    """The server caches reviews for ten seconds; the operator's own watch knows within one."""

    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            placed = await made.pods.place(node)
            await until(lambda: _sees(made, placed), PATIENCE)
            token = await made.token(pod=placed.pod)
            await made.agent(node, token).enrol()
            await made.pods.remove(node)
            await until(lambda: not _sees(made, placed), PATIENCE)
            assert (await made.reviewer.review(token, AUDIENCE)).authenticated
            with pytest.raises(BootstrapError, match="sees no pod") as caught:
                await made.agent(node, token).enrol()
            assert caught.value.reason == "gone"

    run(scenario, LONG)


def test_no_renewal_for_a_node_that_was_deleted(control_plane: ControlPlane, namespace: str, tmp_path: Path):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            assert await made.enrolments.join([node], asyncio.Event())
            await made.core.delete_node(node)
            await until(lambda: node not in made.presence.nodes.objects, PATIENCE)
            with pytest.raises(BootstrapError) as caught:
                await made.enrolments.bootstraps[node].enrol()
            assert caught.value.reason in {"gone", "not_authenticated"}
            await made.core.create_node({"metadata": {"name": node}})
            await until(lambda: node in made.presence.nodes.objects, PATIENCE)
            with pytest.raises(BootstrapError) as caught:  # of the same name, and not the same node
                await made.enrolments.bootstraps[node].enrol()
            assert caught.value.reason in {"gone", "not_authenticated"}

    run(scenario, LONG)


def test_before_the_operator_has_read_the_pods_nobody_gets_one(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path, follows=False) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            await made.pods.place(node)
            agent = made.agent(node, made.pods.token_file(node).read_text())
            with pytest.raises(BootstrapError, match="has not read"):
                await agent.enrol()
            await made.presence.pump()
            await agent.enrol()

    run(scenario, LONG)


OPERATOR = "system:serviceaccount:plimsoll-system:plimsoll-operator"


def test_the_operators_own_rights_are_enough(control_plane: ControlPlane, namespace: str, tmp_path: Path):
    """Its role as the chart has it, bound to the account alone: TokenReviews, and watches of nodes and pods."""
    role = next(
        each
        for each in yaml.safe_load_all((ROOT / "helm/plimsoll/files/rbac/operator.yaml").read_text())
        if each["kind"] == "ClusterRole"
    )
    name = role["metadata"]["name"] = f"{namespace}-operator"
    control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(role))
    control_plane.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--user={OPERATOR}")
    operator = control_plane.kubeconfig_for(OPERATOR, ("system:serviceaccounts", "system:authenticated"))

    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path, operator=operator) as made:
            (node,) = await made.nodes(1)
            assert await made.enrolments.join([node], asyncio.Event())

    try:
        run(scenario, LONG)
    finally:
        control_plane.kubectl("delete", "clusterrole,clusterrolebinding", name)


def test_an_operator_without_the_right_to_review_says_so(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        powerless = control_plane.kubeconfig_for("nobody-in-particular")
        async with cluster(control_plane, namespace, tmp_path, operator=powerless, follows=False) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            await made.pods.place(node)
            with pytest.raises(BootstrapError, match="right to create tokenreviews") as caught:
                await made.agent(node, made.pods.token_file(node).read_text()).enrol()
            assert caught.value.reason == "api_server"

    run(scenario, LONG)


def test_a_paused_api_server_costs_tries_and_no_certificate(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            assert await made.enrolments.join([node], asyncio.Event())
            agent = made.enrolments.bootstraps[node]
            held = agent.credentials()
            control_plane.pause(Component.API_SERVER)
            try:
                with pytest.raises(BootstrapError) as caught:
                    await agent.enrol()
            finally:
                control_plane.resume(Component.API_SERVER)
            assert caught.value.reason == "api_server"
            assert agent.credentials() is held
            stop = asyncio.Event()
            assert await made.enrolments.join([node], stop)
            assert agent.enrolled == 2

    run(scenario, LONG)


def test_a_token_is_exchanged_at_four_fifths_of_its_life(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            placed = await made.pods.place(node)
            first = made.pods.token_file(node).read_text()
            left = placed.refresh_at_seconds - WallClock().now()
            assert 0.7 * 600 < left <= 0.8 * 600
            await made.pods.refresh(placed.refresh_at_seconds - 1)
            assert made.pods.token_file(node).read_text() == first
            await made.pods.refresh(placed.refresh_at_seconds)
            second = made.pods.token_file(node).read_text()
            assert second != first
            await until(lambda: _sees(made, placed), PATIENCE)
            await made.agent(node, second).enrol()

    run(scenario, LONG)


# ------------------------------------------------------------------------------------ an agent writes nothing

SELF = {("authentication.k8s.io", "selfsubjectreviews"), ("authorization.k8s.io", "selfsubjectaccessreviews"), ("authorization.k8s.io", "selfsubjectrulesreviews")}  # fmt: skip
"""What everybody may who can say who they are: ask about themselves."""
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate")  # fmt: skip


async def _kinds(access: Access) -> list[tuple[str, str]]:
    """Every resource and subresource of every group, as the server tells."""
    api: Any = client.ApisApi(access.client)
    groups = [("", "v1")] + [
        (group.name, version.version) for group in (await api.get_api_versions()).groups for version in group.versions
    ]  # fmt: skip
    found: set[tuple[str, str]] = set()
    for group, version in groups:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        headers = await access.headers(path, "GET")
        answer = await access.send(
            "GET", access.endpoint + path, headers, None, aiohttp.ClientTimeout(total=10.0)
        )
        found |= {(group, each["name"]) for each in (await answer.json())["resources"]}
    return sorted(found)


def test_every_verb_on_every_kind_is_refused_to_the_agents_account(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            await made.pods.settle()
            access = await Access.from_kubeconfig(control_plane.kubeconfig)
            reviews: Any = client.AuthorizationV1Api(access.client)
            kinds = await _kinds(access)
            assert len(kinds) > 100
            room = asyncio.Semaphore(16)

            async def allowed(group: str, resource: str, verb: str) -> tuple[str, str, str] | None:
                name, _, sub = resource.partition("/")
                spec = {
                    "user": f"system:serviceaccount:{namespace}:{AGENT}",
                    "groups": [
                        "system:serviceaccounts",
                        f"system:serviceaccounts:{namespace}",
                        "system:authenticated",
                    ],
                    "resourceAttributes": {
                        "group": group,
                        "resource": name,
                        "subresource": sub,
                        "verb": verb,
                        "namespace": namespace,
                    },
                }
                async with room:
                    answer = await reviews.create_subject_access_review({"spec": spec})
                return (group, resource, verb) if answer.status.allowed else None

            asked = [allowed(group, resource, verb) for group, resource in kinds for verb in VERBS]
            granted = {each for each in await asyncio.gather(*asked) if each}
            assert granted == {(group, resource, "create") for group, resource in SELF}
            await access.close()

    run(scenario, 120.0)


def test_with_its_own_token_an_agent_reaches_nothing(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    """The enrolment token is no key to the API server at all; one made for it opens nothing but questions about itself."""

    async def scenario() -> None:
        async with cluster(control_plane, namespace, tmp_path) as made:
            (node,) = await made.nodes(1)
            await made.pods.settle()
            placed = await made.pods.place(node)

            def with_token(token: str) -> client.ApiClient:
                configuration = client.Configuration(
                    host=control_plane.server, ssl_ca_cert=str(control_plane.authority)
                )
                configuration.api_key = {"BearerToken": f"Bearer {token}"}
                return client.ApiClient(configuration)

            async with with_token(made.pods.token_file(node).read_text()) as enrolling:
                with pytest.raises(ApiException) as caught:
                    await client.CoreV1Api(enrolling).list_namespace()
                assert caught.value.status == 401

            async with with_token(await made.token(audiences=(), pod=placed.pod)) as own:
                rules: Any = client.AuthorizationV1Api(own)
                told = await rules.create_self_subject_rules_review({"spec": {"namespace": namespace}})
                assert {
                    (group, resource, verb)
                    for rule in told.status.resource_rules
                    for group in rule.api_groups or [""]
                    for resource in rule.resources or [""]
                    for verb in rule.verbs
                } == {(group, resource, "create") for group, resource in SELF}
                assert all(set(rule.verbs) == {"get"} for rule in told.status.non_resource_rules)
                api: Any = client.CoreV1Api(own)
                for attempt in (
                    api.create_namespaced_pod(namespace, agent_pod(node, made.pods.account)),
                    api.delete_namespaced_pod(placed.pod, namespace),
                    api.patch_node(node, {"metadata": {"labels": {"mine": "yes"}}}),
                    api.create_namespaced_service_account_token(AGENT, namespace, {"spec": {"audiences": [AUDIENCE]}}),
                    api.list_secret_for_all_namespaces(),
                    api.read_namespaced_pod(placed.pod, namespace),
                ):  # fmt: skip
                    with pytest.raises(ApiException) as refused:
                        await attempt
                    assert refused.value.status == 403

    run(scenario, LONG)
