"""The actor's part of buying: an action in, an outcome out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cluster import actions as act
from cluster.overlay import Overlay
from controller.actor.outcome import Outcome
from controller.provisioning.provisioner import Provisioner

Handler = Callable[[act.Stamped, Overlay, Any], Awaitable[Outcome]]


def handlers(provisioner: Provisioner) -> dict[type[act.Action], Handler]:
    """What carries out `Provision` and `ReleaseNode`. They raise what the store raises."""

    async def provision(item: act.Stamped, overlay: Overlay, _: Any) -> Outcome:
        action = item.action
        assert isinstance(action, act.Provision)  # noqa: S101 - the table of handlers guarantees it
        pool = overlay.read("pools")[action.pool]
        accelerator = overlay.read("accelerators")[pool.accelerator]
        names = await provisioner.order(pool, accelerator, action.count, item.issued_seconds)
        if not names:
            return Outcome(
                stamped=item, status="failed", message=f"nothing more may be bought of pool {action.pool} now"
            )
        return Outcome(stamped=item, status="done", message=", ".join(names))

    async def release(item: act.Stamped, _: Overlay, __: Any) -> Outcome:
        action = item.action
        assert isinstance(action, act.ReleaseNode)  # noqa: S101
        wrong = await provisioner.give_back(action.node)
        return Outcome(stamped=item, status="failed" if wrong else "done", message=wrong)

    return {act.Provision: provision, act.ReleaseNode: release}
