"""Until when each node's stream may go on: as long as a certificate of the node holds that the hub knows of.

TLS looks at a certificate when a stream is opened, and a stream can outlive it by months. So the hub looks again: a
stream ends with the certificate it was opened with, unless the node was given a further one meanwhile, which the
operator that signs it says here. A node whose renewal is refused is thus out when its last certificate ends, and one
that renews is never interrupted. Certificates are of wall time, whatever clock decisions live on.
"""

from __future__ import annotations

from cryptography import x509

from runtime.clock import Clock


class Validity:
    """End of the newest known certificate of each node that has a stream."""

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._until: dict[str, float] = {}

    def opened(self, node: str, certificate_pem: bytes) -> None:
        """A stream was opened with this certificate, which TLS has checked."""
        until = x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc.timestamp()
        self._until[node] = max(until, self._until.get(node, until))

    def renewed(self, node: str, until_seconds: float) -> None:
        """The node got a further certificate. Nothing is kept of nodes without a stream."""
        if node in self._until:
            self._until[node] = max(until_seconds, self._until[node])

    def closed(self, node: str) -> None:
        """The node's stream has ended."""
        self._until.pop(node, None)

    def ended(self, node: str) -> bool:
        """Whether the node's last known certificate has ended."""
        return self._wall.now() > self._until.get(node, float("inf"))
