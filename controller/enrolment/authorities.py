"""The signing root in a folder (in a cluster: a Secret mounted as files), followed as it changes, and the operator's
own certificate under it.

::

    DIR/authority.key, authority.pem    the root that signs
    DIR/trusted.pem                     further roots that peers trust, while one root replaces another

To replace a root: put the new one into `trusted.pem` beside the old one, and wait for one life of certificates, so
that all trust both; exchange the two; wait once more; remove the old one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.authority import DAY_SECONDS, TRUSTED, Authority, AuthorityError, Credentials, Identity
from runtime.clock import Clock

logger = logging.getLogger(__name__)

RENEW_FRACTION = 2.0 / 3.0
"""Share of a certificate's life after which it is renewed."""


class AuthorityFolder:
    """Calling it gives the authority as its files have it now; while they cannot be read, as they last could."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises: AuthorityError when there is no usable authority there now."""
        self._folder = folder
        self._clock = clock
        self._stamp = self._stamps()
        self._held = Authority.read(folder, clock)

    def __call__(self) -> Authority:
        """The authority in force. A half-written one is not used, and tried again with the next call."""
        stamp = self._stamps()
        if stamp != self._stamp:
            try:
                self._held = Authority.read(self._folder, self._clock)
                self._stamp = stamp
                logger.info("the signing root was read anew", extra={"facts": {"folder": str(self._folder)}})
            except AuthorityError as error:
                logger.warning("the signing root stays as it was: %s", error)
        return self._held

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(self._folder / name) for name in ("authority.key", "authority.pem", TRUSTED))


class SelfIssued:
    """A `Source` of the operator's own certificate: signed by its root, renewed at two thirds, and when the root or
    what peers are to trust changes. The key never leaves the process.
    """

    def __init__(
        self,
        authority: AuthorityFolder,
        identity: Identity,
        clock: Clock,
        *,
        validity_seconds: float = DAY_SECONDS,
        hosts: tuple[str, ...] = (),
    ) -> None:
        """`hosts` are further DNS names that the operator is dialled by. Raises: AuthorityError."""
        self._authority = authority
        self._identity = identity
        self._clock = clock
        self._validity_seconds = validity_seconds
        self._hosts = hosts
        self._root = authority()
        self._held = self._issue()

    def __call__(self) -> Credentials:
        """The credentials in force; the same object while nothing changed."""
        root = self._authority()
        if root is not self._root or self._clock.now() >= self._renew_at_seconds:
            self._root = root
            try:
                self._held = self._issue()
            except AuthorityError as error:
                logger.warning("the certificate of %s stays as it was: %s", self._identity.uri, error)
        return self._held

    def _issue(self) -> Credentials:
        now = self._clock.now()
        made = self._root.issue(self._identity, self._validity_seconds, self._hosts)
        self._renew_at_seconds = now + RENEW_FRACTION * (made.expires_seconds - now)
        return made


def _stamp(file: Path) -> tuple[int, int]:
    """When a file was last changed, and which one it is: a Secret's files are exchanged by renaming their folder."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
