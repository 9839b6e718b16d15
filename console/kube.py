"""The API server as the command line names it: a kubeconfig and a context, or the account of the pod we run in."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from console.telling import Refused
from controller.config import OperatorConfig
from runtime.clock import Clock

if TYPE_CHECKING:
    from controller.store.kube import KubeStore


async def open_kube(
    kubeconfig: Path | None,
    context: str | None,
    config: OperatorConfig,
    clock: Clock,
    ends: AsyncExitStack,
    *,
    agent: str,
    why: str = "",
) -> KubeStore:
    """Connect, within what `config` lets one client ask; closed by `ends`. `why` says what needs it, for a refusal.

    Raises: Refused.
    """
    from controller.store.kube import AccessError, KubeStore  # the official client takes its time to import
    from controller.store.kube.budget import Budget

    try:
        store = await KubeStore.connect(
            kubeconfig,
            context,
            in_cluster=kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ,
            clock=clock,
            budget=Budget(clock, per_second=config.api_requests_per_second, burst=config.api_burst),
            agent=agent,
        )
    except AccessError as error:
        raise Refused(f"{why} {error}".strip()) from error
    ends.push_async_callback(store.close)
    return store
