"""The user's part of a pod as decisions need it: what cannot be granted, and what it leaves of the cluster."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from controller.observe.intents import Intent

DEFAULT_ACCOUNT = "default"


class PodParts:
    """Looks at `spec.pod` of ModelServices and TrainingJobs. `accounts`: those pods may run as, as `namespace/name`."""

    def __init__(self, accounts: Collection[str] = ()) -> None:
        self._accounts = frozenset(accounts)

    def granted(self, kind: str, obj: Any, intent: Intent) -> Intent:
        """The intent of an object, with what its part of the pod adds to it."""
        faults = (*intent.faults, *self.faults(kind, obj))
        return Intent(None, faults) if faults else intent

    def faults(self, kind: str, obj: Any) -> tuple[str, ...]:
        """A sentence for whatever of it cannot be granted, whoever asks."""
        name, space = obj.spec.pod.service_account_name, obj.metadata.namespace
        if name in ("", DEFAULT_ACCOUNT) or f"{space}/{name}" in self._accounts:
            return ()
        return (_not_lent(f"{kind} {obj.metadata.key}", space, name),)


def _not_lent(who: str, namespace: str, account: str) -> str:
    return (
        f"{who}: spec.pod.serviceAccountName: {account!r} is not lent: the operator creates pods as an account only where "
        f"pods.service_accounts of its configuration names {namespace}/{account}. Leave the field out, or have it "
        "added there."
    )
