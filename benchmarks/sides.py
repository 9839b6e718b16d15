"""Processes of a benchmark beside its own: told lines of JSON, answering in lines of JSON, and what they cost."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base import BenchmarkError

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int, name: str) -> float:
    """Processor time a process has used so far, user and system. Raises: BenchmarkError when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise BenchmarkError(f"The {name} process has gone while it was measured.") from error
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Side:
    """A child process that is told lines of JSON and answers in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @classmethod
    async def start(cls, module: str, name: str, setup: msgspec.Struct) -> Side:
        """Starts `python -m MODULE NAME` and tells it the setup."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        side = cls(process, name)
        await side.tell(msgspec.to_builtins(setup))
        return side

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """Processor time it has used so far, user and system. Raises: BenchmarkError when it is gone."""
        return cpu_seconds(self._process.pid, self._name)

    async def tell(self, message: dict[str, Any]) -> None:
        """Sends one line."""
        if self._process.stdin is None:
            raise BenchmarkError(f"The {self._name} process has no input.")
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        await self._process.stdin.drain()

    async def hear(self, timeout_seconds: float) -> dict[str, Any]:
        """Reads one line. Raises: BenchmarkError when it does not come."""
        if self._process.stdout is None:
            raise BenchmarkError(f"The {self._name} process has no output.")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_seconds)
        except TimeoutError as error:
            raise BenchmarkError(
                f"The {self._name} process said nothing for {timeout_seconds:g} s; is the machine overloaded?"
            ) from error
        if not line:
            raise BenchmarkError(f"The {self._name} process ended (its error is above).")
        return dict(msgspec.json.decode(line))

    async def end(self) -> None:
        """Kills the process: what a crash looks like from outside."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def say(message: dict[str, Any]) -> None:
    """A side's answer to its benchmark."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


async def heard() -> asyncio.StreamReader:
    """The lines that a side is told, on its standard input."""
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    return lines
