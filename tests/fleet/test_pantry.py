"""What a simulated kubelet needs before it starts a container, and what it says while it lacks it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from controller.resources.core import CONFIG_MAP, SECRET
from controller.store.embedded import open_store
from runtime.clock import VirtualClock
from simulator.fleet.objects import Pod
from simulator.fleet.pantry import Obstacle, Pantry


def pod(image: str = "engine:1", policy: str = "", **spec: Any) -> Pod:
    """A pod of the default namespace with one container."""
    container = {"name": "engine", "image": image, "imagePullPolicy": policy, **spec.pop("container", {})}
    return msgspec.convert(
        {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [container], **spec}}, Pod
    )


def found(seen: Pod, *, present: bool = True, waited: float = 0.0) -> Obstacle | None:
    """What keeps it, in a store with the Secret `hub` (key `token`) and the ConfigMap `settings`."""

    async def look() -> Obstacle | None:
        clock = VirtualClock(1_790_000_000.0)
        store = open_store(clock)
        meta = {"namespace": "default"}
        for kind, name, more in (
            (SECRET, "hub", {"data": {"token": "eA=="}}),
            (CONFIG_MAP, "settings", {"data": {"a": "b"}}),
        ):
            obj = {"apiVersion": "v1", "kind": kind.kind, "metadata": {**meta, "name": name}, **more}
            await store.create(kind, obj, field_manager="user")
        pantry = Pantry(store, clock)
        pantry.obstacle(seen, present=present, waited_seconds=0.0)
        await pantry.pump()
        return pantry.obstacle(seen, present=present, waited_seconds=waited)

    return asyncio.run(look())


def env(kind: str, **ref: Any) -> Pod:
    return pod(container={"env": [{"name": "A", "valueFrom": {kind: ref}}]})


CONFIG = "CreateContainerConfigError"
NEEDS = [
    pytest.param(pod(), None, id="nothing"),
    pytest.param(env("secretKeyRef", name="hub", key="token"), None, id="a key that is there"),
    pytest.param(env("secretKeyRef", name="nub", key="token"), Obstacle(CONFIG, 'secret "nub" not found'), id="no such Secret"),
    pytest.param(env("secretKeyRef", name="hub", key="tokn"), Obstacle(CONFIG, "couldn't find key tokn in Secret default/hub"), id="no such key"),
    pytest.param(env("secretKeyRef", name="nub", key="token", optional=True), None, id="no such Secret, and no need of it"),
    pytest.param(env("configMapKeyRef", name="x", key="a"), Obstacle(CONFIG, 'configmap "x" not found'), id="no such ConfigMap"),
    pytest.param(pod(container={"envFrom": [{"secretRef": {"name": "nub"}}]}), Obstacle(CONFIG, 'secret "nub" not found'), id="all of a Secret that is not"),
    pytest.param(pod(volumes=[{"name": "v", "secret": {"secretName": "nub"}}]), Obstacle("ContainerCreating", unmounted=True), id="a volume of none, of which a status says nothing"),
    pytest.param(pod(volumes=[{"name": "v", "secret": {"secretName": "hub"}}]), None, id="a volume of one"),
    pytest.param(pod("Engine:1"), Obstacle("InvalidImageName", 'Failed to apply default image tag "Engine:1": couldn\'t parse image name "Engine:1": invalid reference format'), id="a name that is none"),
    pytest.param(pod("registry.example.com:5000/team/engine@sha256:" + "a" * 64), None, id="a long name"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "wanted"), NEEDS)
def test_what_keeps_it(seen: Pod, wanted: Obstacle | None) -> None:
    assert found(seen) == wanted


def test_an_image_that_must_be_there_and_is_not() -> None:
    obstacle = found(pod(policy="Never"), present=False)
    assert obstacle == Obstacle(
        "ErrImageNeverPull", 'Container image "engine:1" is not present with pull policy of Never'
    )
    assert found(pod(policy="Never"), present=True) is None


PAUSES = [(0, "ErrImagePull"), (1.9, "ErrImagePull"), (2, "ImagePullBackOff"), (11.9, "ImagePullBackOff"), (12, "ErrImagePull"),
          (14, "ImagePullBackOff"), (34, "ErrImagePull"), (36, "ImagePullBackOff"), (76, "ErrImagePull")]  # fmt: skip


@pytest.mark.parametrize(("waited", "reason"), PAUSES)
def test_a_registry_that_is_not_there_is_tried_ever_more_rarely(waited: float, reason: str) -> None:
    obstacle = found(pod("registry.invalid/engine:1"), waited=waited)
    assert obstacle is not None
    assert obstacle.reason == reason
    assert "lookup registry.invalid: no such host" in obstacle.message
