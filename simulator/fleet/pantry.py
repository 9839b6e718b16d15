"""What a kubelet needs before it can start a container: its volumes, its image, the keys its variables come from.

Secrets and ConfigMaps are followed once some pod names one. What is missing keeps the pod waiting in the words of a
kubelet (1.36): it tries again by itself, and goes on when it finds what it needs. A registry whose name ends in `.invalid`
(RFC 2606: nobody will ever have that name) serves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from controller.store.interface import Store
from runtime.clock import Clock
from simulator.fleet.feed import Feed
from simulator.fleet.objects import CONFIG_MAP, SECRET, Held, Pod, Reference

NOWHERE = ".invalid"
"""End of the names of registries that there are not."""
PULL_SECONDS = 2.0
"""How long an attempt to pull is told as failed before the pause is."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 300.0
"""The kubelet's back-off between two pulls: doubled each time."""

_NAME = re.compile(r"[a-z0-9.:-]+(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")


class Obstacle(NamedTuple):
    """Why a container waits, as its status says it; `unmounted`: not even its sandbox is there."""

    reason: str
    message: str = ""
    unmounted: bool = False


class Pantry:
    """Followed Secrets and ConfigMaps of one store, and what of them pods need."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._feeds = {
            "Secret": Feed(store, clock, SECRET, Held),
            "ConfigMap": Feed(store, clock, CONFIG_MAP, Held),
        }
        self._asked = False

    async def pump(self) -> None:
        """Catch up with the store, where some pod has named something of it."""
        if self._asked:
            for feed in self._feeds.values():
                await feed.pump()

    def forget(self) -> None:
        """The store is another one than before."""
        for feed in self._feeds.values():
            feed.forget()

    def close(self) -> None:
        """Give the streams up."""
        for feed in self._feeds.values():
            feed.close()

    def obstacle(self, pod: Pod, *, present: bool, waited_seconds: float) -> Obstacle | None:
        """What keeps a pod from starting now; None when nothing does. `present`: whether its image is on the node."""
        return self._volumes(pod) or _image(pod, present, waited_seconds) or self._variables(pod)

    def _volumes(self, pod: Pod) -> Obstacle | None:
        missing = self._missing(pod, pod.spec.volume_references())
        return Obstacle("ContainerCreating", unmounted=True) if missing else None

    def _variables(self, pod: Pod) -> Obstacle | None:
        needed = (each for container in pod.spec.containers for each in container.references())
        missing = self._missing(pod, needed)
        return Obstacle("CreateContainerConfigError", missing) if missing else None

    def _missing(self, pod: Pod, needed: Iterable[Reference]) -> str:
        """The first thing that is needed and not there, as a kubelet says it."""
        for each in needed:
            feed = self._feeds[each.kind]
            self._asked = True
            found = feed.objects.get(f"{pod.metadata.namespace}/{each.name}")
            if each.optional:
                continue
            if not feed.synced:
                return f"failed to sync {each.kind.lower()} cache: timed out waiting for the condition"
            if found is None:
                return f'{each.kind.lower()} "{each.name}" not found'
            if each.key and each.key not in found.keys:
                return f"couldn't find key {each.key} in {each.kind} {pod.metadata.namespace}/{each.name}"
        return ""


def _image(pod: Pod, present: bool, waited: float) -> Obstacle | None:
    """Why the first image that cannot be had is not there."""
    for container in pod.spec.containers:
        image = container.image
        if not _NAME.fullmatch(image):
            return Obstacle("InvalidImageName", f'Failed to apply default image tag "{image}": couldn\'t parse image '
                            f'name "{image}": invalid reference format')  # fmt: skip
        host = image.partition("/")[0].partition(":")[0]
        if host.endswith(NOWHERE):
            return _unpullable(image, host, waited)
        if container.image_pull_policy == "Never" and not present:
            return Obstacle(
                "ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never'
            )
    return None


def _unpullable(image: str, host: str, waited: float) -> Obstacle:
    """A registry that is not there: an attempt, a pause, an attempt, ever longer apart."""
    why = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": dial tcp: lookup {host}: no such host'
    since, pause = waited, FIRST_PAUSE_SECONDS
    while since >= PULL_SECONDS + pause:
        since -= PULL_SECONDS + pause
        pause = min(2.0 * pause, LONGEST_PAUSE_SECONDS)
    if since < PULL_SECONDS:
        return Obstacle("ErrImagePull", why)
    return Obstacle("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why}')
