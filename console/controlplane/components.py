"""The four processes of a control plane, and how each is started.

Not laxer than a real cluster: every controller on, no admission plugin switched off and two that kubeadm or careful
people switch on, RBAC, priority and fairness, TLS everywhere, each component under its own identity.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from console.controlplane.certificates import Pair, Pki

LOOPBACK = "127.0.0.1"
SERVICE_RANGE = "10.0.0.0/24"
ADVERTISED = "192.0.2.1"
"""What the Service `kubernetes` points at. An address for documents (RFC 5737): no container runs that would dial it,
loopback is refused there, and without the flag a machine that has no network could not start."""
ISSUER = "https://kubernetes.default.svc.cluster.local"
OPEN_PATHS = "/healthz,/readyz,/livez,/metrics"


class Component(StrEnum):
    """Processes of a control plane, in the order of their start. Each is also the name of its binary."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"


READY_PATHS = {
    Component.ETCD: "/readyz",
    Component.API_SERVER: "/readyz",
    Component.CONTROLLER_MANAGER: "/healthz",
    Component.SCHEDULER: "/readyz",
}
"""Where each component says that it does its work."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where one control plane lives: its folder, its certificates, its ports."""

    folder: Path
    pki: Pki
    ports: dict[Component, int]
    kubeconfigs: dict[Component, Path]

    def url(self, component: Component) -> str:
        """`https://127.0.0.1:PORT` of a component."""
        return f"https://{LOOPBACK}:{self.ports[component]}"


def arguments(component: Component, site: Site) -> list[str]:
    """The flags of a component at a site."""
    return _FLAGS[component](site)


def _etcd(site: Site) -> list[str]:
    url = site.url(Component.ETCD)
    pair = site.pki.etcd_serving
    trusted = site.pki.etcd.files.certificate
    return [
        f"--data-dir={site.folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        # One member: nobody dials the peers' port.
        f"--listen-peer-urls=https://{LOOPBACK}:0",
        f"--initial-advertise-peer-urls=https://{LOOPBACK}:0",
        f"--initial-cluster=default=https://{LOOPBACK}:0",
        f"--cert-file={pair.certificate}",
        f"--key-file={pair.key}",
        "--client-cert-auth=true",
        f"--trusted-ca-file={trusted}",
        f"--peer-cert-file={pair.certificate}",
        f"--peer-key-file={pair.key}",
        "--peer-client-cert-auth=true",
        f"--peer-trusted-ca-file={trusted}",
        "--socket-reuse-port=true",
        # A member that is alone elects itself after one such time; it is waited for at each start.
        "--heartbeat-interval=50",
        "--election-timeout=250",
        # What is thrown away at the end need not survive a power failure.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(site: Site) -> list[str]:
    pki = site.pki
    return [
        f"--etcd-servers={site.url(Component.ETCD)}",
        f"--etcd-cafile={pki.etcd.files.certificate}",
        f"--etcd-certfile={pki.etcd_client.certificate}",
        f"--etcd-keyfile={pki.etcd_client.key}",
        *_serving(Component.API_SERVER, site),
        f"--advertise-address={ADVERTISED}",
        f"--client-ca-file={pki.cluster.files.certificate}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki.accounts_public}",
        f"--service-account-signing-key-file={pki.accounts_private}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={pki.front_proxy.files.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki.proxy_client.certificate}",
        f"--proxy-client-key-file={pki.proxy_client.key}",
    ]


def _controller_manager(site: Site) -> list[str]:
    pki = site.pki
    return [
        *_client(Component.CONTROLLER_MANAGER, site),
        *_serving(Component.CONTROLLER_MANAGER, site),
        "--controllers=*",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki.cluster.files.certificate}",
        f"--service-account-private-key-file={pki.accounts_private}",
        f"--cluster-signing-cert-file={pki.cluster.files.certificate}",
        f"--cluster-signing-key-file={pki.cluster.files.key}",
    ]


def _scheduler(site: Site) -> list[str]:
    return [*_client(Component.SCHEDULER, site), *_serving(Component.SCHEDULER, site)]


def _serving(component: Component, site: Site) -> list[str]:
    pair: Pair = site.pki.serving
    return [
        f"--bind-address={LOOPBACK}",
        f"--secure-port={site.ports[component]}",
        # The launcher holds the port, so that nobody else takes it, not even while the component is down.
        "--permit-port-sharing=true",
        f"--tls-cert-file={pair.certificate}",
        f"--tls-private-key-file={pair.key}",
    ]


def _client(component: Component, site: Site) -> list[str]:
    kubeconfig = site.kubeconfigs[component]
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--authorization-always-allow-paths={OPEN_PATHS}",
        # One of each runs: an election would cost seconds at each start, and show nothing.
        "--leader-elect=false",
        "--kube-api-qps=5000",
        "--kube-api-burst=10000",
    ]


_FLAGS: dict[Component, Callable[[Site], list[str]]] = {
    Component.ETCD: _etcd,
    Component.API_SERVER: _api_server,
    Component.CONTROLLER_MANAGER: _controller_manager,
    Component.SCHEDULER: _scheduler,
}
