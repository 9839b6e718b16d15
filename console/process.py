"""What every long-running subcommand shares: logging, signals, saying that it is ready."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import msgspec
from rich.markup import escape

from console.telling import Refused, chosen, errors, one_sentence, print_json
from runtime import logs


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """How a process speaks: log lines on stderr, and one line on stdout when it is ready, if that is asked for."""

    output: str = "table"
    log_level: str = "info"
    log_json: bool = False

    def ready(self, role: str, **facts: str | int) -> None:
        """Say that the process does its work, and where."""
        if self.output == "json":
            print_json({"ready": role, **facts})
            return
        told = "  ".join(f"{name} [cyan]{escape(str(value))}[/cyan]" for name, value in facts.items())
        errors().print(f"[green]{role} is ready[/green]  {told}", soft_wrap=True)


Serve = Callable[[asyncio.Event], Awaitable[None]]


def run_process(serve: Serve, talk: Talk) -> int:
    """Run until SIGTERM or SIGINT, which set the event given; faults of the start end with a sentence and 2.

    A second signal ends the process at once.
    """
    with one_sentence():
        chosen("output", talk.output, ("table", "json"))
        try:
            logs.configure(talk.log_level, json=talk.log_json)
        except ValueError as error:
            raise Refused(str(error)) from error
        asyncio.run(_until_told(serve))
    return 0


async def _until_told(serve: Serve) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    await serve(stop)
