"""Processes that never outlive the one that started them, and ports that nobody else takes.

A leader and a guardian, shells of one line, read a pipe whose other end only the launcher holds. The leader does
nothing else but to be there: it leads the process group of all that are started. However the launcher ends, kill -9
included, the pipe closes; the guardian, outside the group, kills it and then removes its folder. Signals that ask a
process to end when its parent does are bound to the *thread* that forked; this is not, so a control plane may be
started from any thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from console.controlplane.errors import ControlPlaneError

STOP_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""
TAIL_LINES = 25
TAIL_BYTES = 64_000
_DEAF = 'trap "" HUP INT TERM; read -r _; '
_LEADER = _DEAF + "sleep 5"  # until the guardian ends the group; no other can get its number before
_GUARDIAN = _DEAF + (
    'kill -s KILL -- "-$1"; n=0; '
    'while kill -s 0 -- "-$1" 2>/dev/null && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.05; done; '
    'rm -rf -- "$2"'
)


class Group:
    """Processes of one launcher and the folder that ends with them. Close it, or end: either ends them all."""

    def __init__(self, folder: Path) -> None:
        """Starts leader and guardian; `folder` is removed with the group."""
        self._folder = folder
        reading, self._life = os.pipe()
        try:
            self._leader = _shell(reading, _LEADER, "leader")
            self._guardian = _shell(reading, _GUARDIAN, "guardian", str(self.id), str(folder))
        finally:
            os.close(reading)

    @property
    def id(self) -> int:
        """The id of the process group."""
        return self._leader.pid

    def spawn(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process of the group; what it says goes to the end of `log`."""
        with log.open("ab") as said:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment,
                process_group=self.id,
            )

    def close(self) -> None:
        """Ends what still runs of the group, and removes its folder. Idempotent."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        for shell in (self._leader, self._guardian):
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def _shell(reading: int, script: str, *names: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [shutil.which("sh") or "/bin/sh", "-c", script, *names],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


def end(process: subprocess.Popen[bytes], patience_seconds: float = STOP_SECONDS) -> bool:
    """SIGTERM, and SIGKILL when that does not end it in time. True when it ended by itself."""
    if process.poll() is not None:
        return True
    # A stopped process does not hear SIGTERM before it goes on.
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
        return False
    return True


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            said = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line[:400]}" for line in said[-lines:])


class Port:
    """A free port of loopback, held from now until `release`.

    The socket is bound and never listens: a component that asks for SO_REUSEPORT can listen beside it, connections
    reach the component alone, and a stranger cannot take the port while the component is down.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        """Takes one. Raises: ControlPlaneError when there is none."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind((host, 0))
        except OSError as error:
            self._socket.close()
            raise ControlPlaneError(
                f"No free port on {host}: {error.strerror}. End what holds so many, and try again."
            ) from error
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Gives the port back. Idempotent."""
        self._socket.close()


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now; 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def state(pid: int) -> str:
    """The letter by which the kernel says what a process does (R, S, T stopped, Z ended); empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
