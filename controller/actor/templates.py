"""ResourceClaimTemplates of our objects: made before the first pod that names one, owned by the user's object."""

from __future__ import annotations

import contextlib

from cluster.hardware import AcceleratorClass
from controller.actor.equipment import Share, claim_template
from controller.observe import labels
from controller.resources.coredra import CLAIM_TEMPLATE
from controller.store.errors import AlreadyExists
from controller.store.interface import JsonObject, Store

KNOWN_SECONDS = 60.0
"""How long a template that was there is taken to be there still: one that somebody deletes is made again after that."""


class Templates:
    """Makes what is missing. A template never changes: its name says what it asks for."""

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._known: dict[tuple[str, str, str], float] = {}

    async def ensure(
        self,
        pod: JsonObject,
        accelerator: AcceleratorClass,
        gpus: int,
        now_seconds: float,
        share: Share | None = None,
    ) -> None:
        """The template that a pod names, if it names one, of whole GPUs or a share. Raises StoreError when it cannot be made."""
        if not pod["spec"].get("resourceClaims"):
            return
        template = claim_template(pod, accelerator, gpus, share)
        meta = template["metadata"]
        key = (meta["namespace"], meta["name"], meta["ownerReferences"][0]["uid"])
        self._known = {each: until for each, until in self._known.items() if until > now_seconds}
        if key in self._known:
            return
        # One that exists is our own, or of a predecessor, which the garbage collector takes: then it is made again.
        with contextlib.suppress(AlreadyExists):
            await self._store.create(CLAIM_TEMPLATE, template, field_manager=labels.MANAGER)
        self._known[key] = now_seconds + KNOWN_SECONDS
