"""Leaves gRPC no TLS but 1.3. Must be imported before `grpc` is; importing any module of `runtime` does that.

grpcio has no switch for the least TLS version. It has one for the cipher suites of TLS 1.2 (those of 1.3 are not
settable): we allow suites that authenticate with RSA only, while our authority issues elliptic-curve certificates
only. So a 1.2 handshake finds no suite in common, on either side, and 1.3 is what is left. gRPC reads the setting
once, when its core is loaded, hence the order. Two more nets hang below this one: `runtime.tls` refuses each call
whose connection did not negotiate 1.3, and `runtime.tls.prove_only_tls13` tries the door after it is opened.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
ONLY_TLS13 = "ECDHE-RSA-AES256-GCM-SHA384"
"""A suite of TLS 1.2 that an elliptic-curve certificate cannot be used with."""

LOADED_TOO_LATE = "grpc._cython.cygrpc" in sys.modules and os.environ.get(VARIABLE) != ONLY_TLS13
"""True when gRPC's core was loaded before the setting was made: it would still speak TLS 1.2."""

os.environ[VARIABLE] = ONLY_TLS13
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a refused handshake is ours to report, not a line on stderr


class TransportUnsafe(Exception):
    """The process could speak something weaker than TLS 1.3; the text says why and what to do."""


def require_only_tls13() -> None:
    """Called before credentials are made.

    Raises: TransportUnsafe when gRPC was loaded first, or the setting was changed since.
    """
    if LOADED_TOO_LATE:
        raise TransportUnsafe(
            "grpc was imported before runtime, so it would still accept TLS 1.2. "
            "Put `import runtime` first in the program's first module."
        )
    if os.environ.get(VARIABLE) != ONLY_TLS13:
        raise TransportUnsafe(f"{VARIABLE} was changed after runtime set it; leave it to runtime.")
