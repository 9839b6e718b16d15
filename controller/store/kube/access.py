"""How the API server is reached, and as whom: kubeconfig or the account of the pod, read by the official client.

The client's own configuration loading, TLS context, HTTP session and token renewal are used; what travels over the
session is ours (`controller.store.kube.transport`).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, kube_config, load_incluster_config

from controller.store.errors import Unavailable
from controller.store.interface import JsonObject

_load_kube_config: Any = kube_config.load_kube_config
_load_incluster_config: Any = load_incluster_config
"""The client's loaders carry no types."""

RENEW_BEFORE = timedelta(minutes=2)
"""A token of an exec plugin is asked for anew so long before it expires."""


class AccessError(Exception):
    """The configuration cannot be used; the message says which, where, and what to do."""


class Access:
    """A configured client of one API server. Made by `from_kubeconfig` or `in_cluster`."""

    def __init__(self, client: ApiClient, source: str) -> None:
        self.client = client
        self.source = source
        self._rest: Any = client.rest_client

    @property
    def endpoint(self) -> str:
        """https://host:port of the API server."""
        return str(self.client.configuration.host)

    async def headers(self, path: str, method: str) -> dict[str, str]:
        """Headers of one request: who we are. Renews a token that is about to expire."""
        made: dict[str, str] = dict(self.client.default_headers)
        try:
            await self.client.update_params_for_auth(made, [], ["BearerToken"], path, method, None)
        except (ConfigException, OSError) as error:
            raise Unavailable(f"the credentials from {self.source} cannot be renewed: {error}") from error
        return made

    async def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: JsonObject | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """One request over the client's session; the body of the answer is not read yet."""
        answer = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def close(self) -> None:
        """End all connections."""
        await self._rest.close()

    @classmethod
    async def from_kubeconfig(
        cls, path: Path | None = None, context: str | None = None, *, agent: str = "plimsoll"
    ) -> Access:
        """Access as a kubeconfig says; without a path $KUBECONFIG, else ~/.kube/config.

        Raises: AccessError when there is none, or it is no kubeconfig, or lacks the context.
        """
        where = _kubeconfig(path)
        configuration = Configuration()
        try:
            loader = await _load_kube_config(
                config_file=where,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise AccessError(
                f"{where} cannot be used as a kubeconfig: {error}. Give --kubeconfig the path of a good one, and "
                "--context one of its contexts."
            ) from error
        except Exception as error:  # PyYAML's errors, without importing it for their name
            if type(error).__module__.partition(".")[0] != "yaml":
                raise
            raise AccessError(f"{where} is no YAML: {error}") from error
        _renew_exec(loader, configuration)
        return cls(client_of(configuration, agent), where)

    @classmethod
    def in_cluster(cls, *, agent: str = "plimsoll") -> Access:
        """Access as the pod's own account; its token is read anew each minute. Raises: AccessError outside a pod."""
        configuration = Configuration()
        try:
            _load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise AccessError(
                f"There is no account of a pod here: {error} Outside a cluster, give --kubeconfig."
            ) from error
        return cls(client_of(configuration, agent), "the pod's account")


def _kubeconfig(path: Path | None) -> str:
    """The file or files to read. Raises: AccessError when none is there."""
    if path is not None:
        given = str(path.expanduser())
    else:
        given = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(each).expanduser().is_file() for each in given.split(os.pathsep) if each):
        raise AccessError(f"There is no kubeconfig at {given}: give --kubeconfig the path of one.")
    return given


def client_of(configuration: Configuration, agent: str) -> ApiClient:
    """The official client with our headers. Raises: AccessError for certificates that cannot be loaded."""
    try:
        client = ApiClient(configuration)
    except OSError as error:  # ssl.SSLError is one
        raise AccessError(
            f"The certificates given for {configuration.host} cannot be loaded: {error}"
        ) from error
    client.default_headers["User-Agent"] = agent
    client.default_headers["Accept"] = "application/json"
    # Compression costs both ends more than a cluster's network does (a page of 500 pods: 3 MB, 40 ms of CPU).
    client.default_headers["Accept-Encoding"] = "identity"
    return client


def _renew_exec(loader: Any, configuration: Any) -> None:
    """Ask an exec plugin again shortly before its token expires (the client alone would not)."""
    user = getattr(loader, "_user", None)
    if user is None or "exec" not in user:
        return
    if not configuration.api_key and not configuration.cert_file:
        raise AccessError(
            "The exec plugin of the kubeconfig's user gave neither a token nor a certificate: run it by hand to see why."
        )

    async def renew(held: Any) -> None:
        expiry = getattr(loader, "exec_plugin_expiry", None)
        if expiry is not None and expiry - RENEW_BEFORE <= datetime.now(UTC):
            if not await loader.load_from_exec_plugin():
                raise ConfigException("the exec plugin gave nothing")
            held.api_key["BearerToken"] = loader.token

    configuration.refresh_api_key_hook = renew
