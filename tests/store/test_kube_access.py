"""How the API server is reached and as whom: kubeconfigs good and bad, tokens that change, plugins that fail."""

from __future__ import annotations

import asyncio
import stat
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.config import incluster_config

from console.controlplane import ControlPlane
from controller.resources.core import POD
from controller.store.errors import Forbidden, Unavailable
from controller.store.interface import Resource
from controller.store.kube import Access, AccessError, KubeStore
from tests.store.loopback import loopback, scene, status

Json = dict[str, Any]


def config(server: str = "http://127.0.0.1:1", **user: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "astray", "context": {"cluster": "elsewhere", "user": "u"}},
        ],
        "current-context": "here",
    }


def written(folder: Path, given: Json | str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(given if isinstance(given, str) else yaml.safe_dump(given))
    return path


def plugin(folder: Path, body: str) -> Json:
    """An exec plugin: `body` is Python."""
    path = folder / "plugin"
    path.write_text(
        f"#!{sys.executable}\nimport json, pathlib\nhere = pathlib.Path({str(folder)!r})\n{body}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}}


BAD: list[Any] = [
    pytest.param("", None, "cannot be used as a kubeconfig", id="an empty file"),
    pytest.param("a: [", None, "is no YAML", id="no YAML"),
    pytest.param("just words", None, "cannot be used as a kubeconfig", id="no mapping"),
    pytest.param({"clusters": []}, None, "current-context", id="no current context"),
    pytest.param(config(), "nowhere", "nowhere", id="a context that is not there"),
    pytest.param(config(), "astray", "elsewhere", id="a context whose cluster is not there"),
    pytest.param(
        {**config("https://127.0.0.1:1"), "clusters": [{"name": "c", "cluster": {
            "server": "https://127.0.0.1:1", "certificate-authority": "/nowhere/ca.crt"}}]},
        None, "/nowhere/ca.crt", id="a certificate file that is not there",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "context", "words"), BAD)
def test_a_kubeconfig_that_cannot_be_used_is_named_with_its_fault(
    tmp_path: Path, given: Any, context: str | None, words: str
) -> None:
    path = written(tmp_path, given)
    with pytest.raises(AccessError) as caught:
        asyncio.run(KubeStore.connect(path, context))
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessError, match=r"There is no kubeconfig at .*\.kube/config: give --kubeconfig"):
        asyncio.run(KubeStore.connect())


def test_the_environment_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"/nowhere/first:{written(tmp_path, config())}")

    async def play() -> None:
        store = await KubeStore.connect()
        assert store.transport.access.endpoint == "http://127.0.0.1:1"
        await store.close()

    scene(play)


def test_outside_a_pod_there_is_no_account_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(AccessError, match="no account of a pod here"):
        asyncio.run(KubeStore.connect(in_cluster=True))


async def who(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") == "Bearer wrong":
        return status(401, "Unauthorized", "Unauthorized")
    return web.json_response({"metadata": {"name": "a"}})


def test_a_token_is_sent_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    async def play() -> None:
        async with loopback(who) as server:
            for token in ("right", "wrong"):
                store = await KubeStore.connect(written(tmp_path, config(server.url, token=token)))
                if token == "right":
                    await store.get(POD, "a", "b")
                else:
                    with pytest.raises(Forbidden, match="does not know who is asking"):
                        await store.get(POD, "a", "b")
                await store.close()
            assert [each["Authorization"] for each in server.headers] == ["Bearer right", "Bearer wrong"]

    scene(play)


def test_a_plugins_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    user = plugin(tmp_path, """
count = here / "count"
turn = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(turn))
expiry = "2020-01-01T00:00:00Z" if turn < 3 else "2099-01-01T00:00:00Z"
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": f"t{turn}", "expirationTimestamp": expiry}}))
""")  # fmt: skip

    async def play() -> None:
        async with loopback(who) as server:
            store = await KubeStore.connect(written(tmp_path, config(server.url, **user)))
            for _ in range(4):
                await store.get(POD, "a", "b")
            await store.close()
            sent = [each["Authorization"] for each in server.headers]
            assert sent == ["Bearer t2", "Bearer t3", "Bearer t3", "Bearer t3"]

    scene(play)


def test_a_plugin_that_fails_at_the_start_is_an_access_error(tmp_path: Path) -> None:
    path = written(tmp_path, config(**plugin(tmp_path, "raise SystemExit(3)")))
    with pytest.raises(AccessError, match="gave neither a token nor a certificate"):
        asyncio.run(KubeStore.connect(path))


def test_a_plugin_that_fails_later_makes_requests_unavailable(tmp_path: Path) -> None:
    user = plugin(tmp_path, """
if (here / "broken").exists():
    raise SystemExit("no network")
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"}}))
""")  # fmt: skip

    async def play() -> None:
        async with loopback(who) as server:
            store = await KubeStore.connect(written(tmp_path, config(server.url, **user)))
            await store.get(POD, "a", "b")
            (tmp_path / "broken").touch()
            with pytest.raises(Unavailable, match=r"credentials from .* cannot be renewed"):
                await store.get(POD, "a", "b")
            (tmp_path / "broken").unlink()
            await store.get(POD, "a", "b")
            await store.close()

    scene(play)


SELF = Resource(
    group="authentication.k8s.io",
    version="v1",
    kind="SelfSubjectReview",
    plural="selfsubjectreviews",
    namespaced=False,
)


def test_a_pods_account_is_used_and_its_token_read_anew(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod: address by environment, token and authority in files; the token file then changes."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    control_plane.api.ask("POST", accounts, {"metadata": {"name": "successor"}})

    def mount(account: str) -> None:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600},
        }
        given = control_plane.api.ask("POST", f"{accounts}/{account}/token", asked)
        (tmp_path / "token").write_text(given["status"]["token"])

    begin = incluster_config.InClusterConfigLoader.__init__

    def impatient(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        self._token_refresh_period = timedelta(0)

    mount("default")
    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "__init__", impatient)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(control_plane.authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", control_plane.server.rpartition(":")[2])

    async def me(store: KubeStore) -> str:
        answer = await store.create(SELF, {"metadata": {}}, field_manager="tests")
        return str(answer["status"]["userInfo"]["username"]).rpartition(":")[2]

    async def play() -> None:
        store = await KubeStore.connect(in_cluster=True)
        assert await me(store) == "default"
        mount("successor")
        assert await me(store) == "successor"
        (tmp_path / "token").write_text("nonsense")
        with pytest.raises(Forbidden, match="does not know who is asking"):
            await me(store)
        (tmp_path / "token").unlink()
        with pytest.raises(Unavailable, match="cannot be renewed"):
            await me(store)
        await store.close()

    scene(play)


def test_a_pod_whose_authority_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("nonsense")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(AccessError, match="cannot be loaded"):
        Access.in_cluster()


def test_a_certificate_that_is_not_trusted_is_told(control_plane: ControlPlane, tmp_path: Path) -> None:
    """The real server, by a kubeconfig without its authority."""
    path = written(tmp_path, config(control_plane.server))

    async def play() -> None:
        store = await KubeStore.connect(path)
        with pytest.raises(Unavailable, match="certificate that is not trusted"):
            await store.get(POD, "a", "b")
        await store.close()

    scene(play)
