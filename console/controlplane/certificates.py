"""The throw-away authorities and certificates of one control plane, laid out as kubeadm lays them out.

Three roots: the cluster's own (serving and client certificates, and what the controller manager signs), etcd's, and the
front proxy's. P-256, a week at most, readable by the owner alone; they end with the control plane.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.authority import BACKDATE_SECONDS, DAY_SECONDS, write_private
from runtime.clock import Clock

VALIDITY_SECONDS = 7 * DAY_SECONDS
SERVICE_ADDRESS = "10.0.0.1"
"""The first address of the services' range: what the Service `kubernetes` in `default` gets."""
SERVED_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class Pair(msgspec.Struct, frozen=True):
    """Files of one certificate and its key, PEM."""

    certificate: Path
    key: Path


class Root:
    """One authority: signs serving and client certificates into its folder."""

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        """Makes the key and the certificate of the authority and writes them to FOLDER/NAME.pem and NAME.key."""
        self._folder = folder
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, ())
        certificate = (
            self._builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._subject = subject
        self.files = _written(folder, name, certificate, self._key)

    def serving(self, name: str) -> Pair:
        """A certificate for servers on this machine's loopback, and for clients too: etcd dials itself."""
        names: list[x509.GeneralName] = [x509.DNSName(each) for each in SERVED_NAMES]
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", SERVICE_ADDRESS)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._signed(name, name, (), usages, names)

    def client(self, file: str, user: str, groups: Sequence[str] = ()) -> Pair:
        """A certificate by which the API server knows `user` as a member of `groups`."""
        return self._signed(file, user, groups, [ExtendedKeyUsageOID.CLIENT_AUTH], [])

    def _signed(
        self,
        file: str,
        common_name: str,
        groups: Sequence[str],
        usages: list[x509.ObjectIdentifier],
        names: list[x509.GeneralName],
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(_subject(common_name, groups), self._subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _written(self._folder, file, builder.sign(self._key, hashes.SHA256()), key)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(seconds=BACKDATE_SECONDS))
            .not_valid_after(now + dt.timedelta(seconds=VALIDITY_SECONDS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


class Pki:
    """Every certificate of one control plane. The folder holds private keys: it is the owner's alone."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Makes them all (a few milliseconds)."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.cluster = Root(folder, "cluster-authority", clock)
        self.etcd = Root(folder, "etcd-authority", clock)
        self.front_proxy = Root(folder, "front-proxy-authority", clock)
        self.etcd_serving = self.etcd.serving("etcd")
        self.etcd_client = self.etcd.client("etcd-client", "kube-apiserver")
        self.serving = self.cluster.serving("serving")
        self.proxy_client = self.front_proxy.client("front-proxy-client", "front-proxy-client")
        self.admin = self.cluster.client("admin", "admin", ["system:masters"])
        self.controller_manager = self.cluster.client("controller-manager", "system:kube-controller-manager")
        self.scheduler = self.cluster.client("scheduler", "system:kube-scheduler")
        self.accounts_public = folder / "service-accounts.pub"
        self.accounts_private = folder / "service-accounts.key"
        self._write_accounts_keys()

    def _write_accounts_keys(self) -> None:
        """The pair that signs and checks the tokens of service accounts."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(self.accounts_private, _key_pem(key))
        write_private(self.accounts_public, public)

    def kubeconfig(self, name: str, server: str, user: Pair, namespace: str = "default") -> Path:
        """Writes a kubeconfig and gives its path.

        It names the files of key and certificates: where a kubeconfig holds them itself, clients write them to
        temporary files, which outlive a client that is killed.
        """
        text = yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "plimsoll",
                "contexts": [
                    {
                        "name": "plimsoll",
                        "context": {"cluster": "plimsoll", "user": name, "namespace": namespace},
                    }
                ],
                "clusters": [
                    {
                        "name": "plimsoll",
                        "cluster": {
                            "server": server,
                            "certificate-authority": str(self.cluster.files.certificate),
                        },
                    }
                ],
                "users": [
                    {
                        "name": name,
                        "user": {
                            "client-certificate": str(user.certificate),
                            "client-key": str(user.key),
                        },
                    }
                ],
            },
            sort_keys=False,
        )
        path = self._folder / f"{name}.kubeconfig"
        write_private(path, text.encode())
        return path


def _subject(common_name: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SEC 1 ("EC PRIVATE KEY"): the form that every component reads, for TLS and for tokens."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _written(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    files = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    write_private(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    write_private(files.key, _key_pem(key))
    return files


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
