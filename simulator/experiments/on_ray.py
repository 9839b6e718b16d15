"""Runs on a Ray cluster. Ray starts a run again whose worker or node died; its outcome is kept here as it comes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from simulator.experiments.outcomes import Outcome, OutcomeFolder
from simulator.experiments.processes import TRIES
from simulator.experiments.runs import Run
from simulator.experiments.working import carry_out

LOOK_SECONDS = 5.0
KNOCK_SECONDS = 5.0


def on_ray(
    address: str,
    target: str,
    scenario: bytes,
    runs: Sequence[Run],
    folder: OutcomeFolder,
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Outcomes of all runs in their order, as `on_processes`, on the cluster at `address`.

    Workers need Plimsoll installed. Raises ValueError when Ray is not installed here, ConnectionError when there is no
    cluster at the address.
    """
    ray = _connected(address)
    finished = {run: kept for run in runs if (kept := folder.load(run)) is not None}
    for outcome in finished.values():
        done(outcome)
    task = ray.remote(carry_out).options(max_retries=TRIES, num_cpus=1)
    hand: dict[Any, Run] = {
        task.remote(target, scenario, run): run for run in dict.fromkeys(runs) if run not in finished
    }
    try:
        while hand:
            ready, _ = ray.wait(list(hand), num_returns=1, timeout=LOOK_SECONDS)
            for reference in ready:
                run = hand.pop(reference)
                finished[run] = outcome = _outcome(ray, reference, run)
                if not outcome.error:
                    folder.keep(outcome)
                done(outcome)
    finally:
        ray.shutdown()
    return [finished[run] for run in runs]


def _knock(address: str) -> None:
    """Ray itself tries for minutes. Raises ConnectionError when nobody answers at HOST:PORT."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # `auto` and the like
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address!r}: {error}") from error


def _connected(address: str) -> Any:
    try:
        import ray  # noqa: PLC0415 - only for those who have a cluster
    except ImportError:
        raise ValueError(
            "Ray is not installed here: install plimsoll[experiments], or leave --ray out."
        ) from None
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"no Ray cluster at {address!r}: {error}") from error
    return ray


def _outcome(ray: Any, reference: Any, run: Run) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(run=run, error=f"lost on the cluster: {type(error).__name__}: {error}")
    return outcome
