"""Images that never run, as a kubelet tells them: pulled in vain, or crashing again and again (kubelet 1.36's words)."""

from __future__ import annotations

from simulator.fleet.reports import Report

FIRST_SECONDS = 2.0
"""How long the first pull, or the first run, takes to fail."""
BACK_OFF_SECONDS = 10.0
"""The pause before the next try: the kubelet's first one. Ours does not grow, which only makes it quicker."""
CRASH = "CrashLoopBackOff"


def told_of(fault: str, image: str, since_seconds: float, now_seconds: float) -> Report:
    """What is told of a container of a broken image. `fault` is the word that it comes to in the end."""
    waited = now_seconds - since_seconds
    if waited < FIRST_SECONDS:
        return Report(reason="ContainerCreating")
    tries = 1 + int((waited - FIRST_SECONDS) // BACK_OFF_SECONDS)
    if fault == CRASH:
        message = f"back-off 10s restarting failed container from {image}"
        return Report(
            "Running", CRASH, message, fault=True, restarts=tries - 1, started_seconds=since_seconds
        )
    return Report(reason=fault, message=f'Back-off pulling image "{image}": not found', fault=True)
