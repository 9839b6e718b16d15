"""`plimsoll send`: requests through a gateway in real time, and how they were served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from console.telling import Refused, chosen, errors, host_and_port, one_sentence, people, print_json
from gateway.client import ClientError, GatewayClient, Request, Result
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from runtime.pausing import pause

Callback = Callable[[], None]
QUANTILES = (0.5, 0.95, 0.99)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll send` was asked to send. `rate` 0: all at once."""

    service: str
    gateway: str
    gateway_name: str
    count: int
    rate: float
    input_tokens: int
    output_tokens: int
    timeout_seconds: float
    client: str
    pki: Path


class Sent(msgspec.Struct, frozen=True):
    """A request's answer and when it was sent (UTC seconds of this machine)."""

    sent_seconds: float
    result: Result


def run_send(load: Load, output: str) -> int:
    """Send and wait; 0 when every request was served, 1 when some were not, 2 when none could be sent."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        host_and_port(load.gateway, "--gateway")
        if "/" not in load.service:
            raise Refused(
                f"{load.service!r} is no service: write NAMESPACE/NAME, such as default/{load.service}."
            )
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=errors(),
            transient=True,
        ) as progress:
            task = progress.add_task(f"requests to {load.service}", total=load.count)
            try:
                sent = asyncio.run(_send(load, lambda: progress.advance(task)))
            except TimeoutError as error:
                raise Refused(
                    f"Not every answer came in {load.timeout_seconds:g} s: is the service starting (`plimsoll explain "
                    f"msvc/{load.service}` says why it is not), or is --timeout too short?"
                ) from error
        summary = summarise(sent)
        if output == "json":
            print_json(summary)
        else:
            _show(load, summary)
        return 0 if summary["served"] == load.count else 1


async def _send(load: Load, done: Callback) -> list[Sent]:
    clock = WallClock()
    credentials = Keyring(load.pki, clock).get(Identity(Role.CLIENT, load.client))
    client = await GatewayClient.connect(load.gateway, load.gateway_name, credentials)
    never = asyncio.Event()
    try:
        async with asyncio.timeout(load.timeout_seconds):
            waiting = []
            for number in range(load.count):
                waiting.append(asyncio.create_task(_one(client, load, number + 1, clock, done)))
                if load.rate > 0.0 and number + 1 < load.count:
                    await pause(never, 1.0 / load.rate)
            return list(await asyncio.gather(*waiting))
    finally:
        await client.close()


async def _one(client: GatewayClient, load: Load, number: int, clock: WallClock, done: Callback) -> Sent:
    request = Request(number, load.service, load.input_tokens, load.output_tokens)
    sent_seconds = clock.now()
    try:
        (result,) = await client.generate([request], load.timeout_seconds)
    except ClientError as error:
        raise Refused(f"{error}") from error
    done()
    return Sent(sent_seconds, result)


def summarise(sent: list[Sent]) -> dict[str, object]:
    """Counts by outcome and code, and latencies of what was served, in seconds."""
    served = [each for each in sent if each.result.outcome == "served"]
    first = [each.result.first_token_seconds - each.sent_seconds for each in served]
    last = [each.result.finished_seconds - each.sent_seconds for each in served]
    codes = Counter(each.result.code for each in sent if each.result.outcome != "served")
    return {
        "sent": len(sent),
        "served": len(served),
        "rejected": sum(each.result.outcome == "rejected" for each in sent),
        "lost": sum(each.result.outcome == "lost" for each in sent),
        "retried": sum(each.result.retries for each in sent),
        "output_tokens": sum(each.result.output_tokens for each in served),
        "why_not": dict(sorted(codes.items())),
        "instances": dict(sorted(Counter(each.result.instance for each in served).items())),
        "first_token_seconds": _quantiles(first),
        "last_token_seconds": _quantiles(last),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{100 * q:g}": round(float(np.quantile(values, q)), 4) for q in QUANTILES}


def _show(load: Load, summary: dict[str, object]) -> None:
    console = people()
    colour = "green" if summary["served"] == load.count else "red"
    console.print(
        f"[{colour}]{summary['served']} of {load.count} served[/{colour}], {summary['rejected']} rejected, "
        f"{summary['lost']} lost, {summary['retried']} retries"
    )
    table = Table("", *(f"p{100 * q:g}" for q in QUANTILES), box=None, padding=(0, 2), header_style="bold")
    for name, key in (("first token", "first_token_seconds"), ("last token", "last_token_seconds")):
        values = summary[key]
        if isinstance(values, dict) and values:
            table.add_row(name, *(f"{value:.2f} s" for value in values.values()))
    if table.row_count:
        console.print(table)
    for name, counts in (("served by", summary["instances"]), ("not served", summary["why_not"])):
        if isinstance(counts, dict) and counts:
            told = ", ".join(f"{escape(str(key))} {count}" for key, count in counts.items())
            console.print(f"{name}: {told}")
