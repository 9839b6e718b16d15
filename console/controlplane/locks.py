"""One at a time, across processes: a lock file that the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from console.controlplane.errors import ControlPlaneError

PATIENCE_SECONDS = 3600.0
POLL_SECONDS = 0.2


@contextmanager
def locked(
    path: Path, say: Callable[[str], None], patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Holds the lock at `path`, saying once that it waits for another. Raises: ControlPlaneError when that takes too long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, path, say, patience_seconds)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, say: Callable[[str], None], patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    waits = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ControlPlaneError(
                    f"Another process has held {path} for {patience_seconds:.0f} s. End it, and try again."
                ) from None
        else:
            return
        if not waits:
            say("another process is at it; waiting for it")
            waits = True
        time.sleep(POLL_SECONDS)
