"""Real processes of the command line, for tests: started, read, ended by their id, and never left behind."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from console.main import app

ROOT = Path(__file__).resolve().parents[2]
PLIMSOLL = [sys.executable, "-m", "console.main"]
START_SECONDS = 90.0
END_SECONDS = 15.0


class Process:
    """One `plimsoll ROLE … -o json`."""

    def __init__(self, role: str, words: list[str], folder: Path) -> None:
        self.role = role
        self.ready: dict[str, Any] = {}
        self.log = folder / f"{role}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PLIMSOLL, role, *words, "-o", "json"],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def until_ready(self) -> dict[str, Any]:
        """What it says when it is ready; fails with its log when it does not become so."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            assert waiting.select(START_SECONDS), f"{self.role} is not ready: {self.told()}"
        line = self._process.stdout.readline()
        assert line, f"{self.role} ended with {self._process.wait(5)}: {self.told()}"
        self.ready = json.loads(line)
        return self.ready

    def told(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def ask_to_end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Its exit code, when it has ended in time."""
        return self._process.wait(END_SECONDS)

    def kill(self) -> None:
        """Whatever is left of it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def leftovers(self) -> list[int]:
        """Processes of its session that still run, by id."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = entry.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(entry.parent.name))
        return found


class Bench:
    """A folder with certificates, and the processes started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = folder / "pki"
        self.ledger = folder / "ledger.db"
        self.processes: list[Process] = []
        self.ask("pki", "init", "--dir", str(self.pki))

    def start(self, role: str, *words: str) -> Process:
        made = Process(role, ["--pki", str(self.pki), *words], self.folder)
        self.processes.append(made)
        return made

    def ask(self, *words: str) -> Any:
        """One command, in this process (its modules are loaded here already); its JSON."""
        told = CliRunner().invoke(app, [*words, "-o", "json"])
        assert told.exit_code == 0, f"{words}: {told.output}\n{self.logs()}"
        return json.loads(told.stdout)

    def logs(self) -> str:
        return "\n".join(f"== {each.role}\n{each.told()[-3000:]}" for each in self.processes)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder)
    try:
        yield made
    finally:
        for each in made.processes:
            each.kill()


def wait_for(what: str, holds: Callable[[], Any], seconds: float, told: Callable[[], str]) -> Any:
    """Poll until something holds; fails with its name and the logs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := holds():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not in {seconds:g} s: {what}\n{told()}")


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
