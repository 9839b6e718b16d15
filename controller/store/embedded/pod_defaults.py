"""What the API server fills in where a pod or a Service says nothing: the defaults of core/v1 that anybody can see."""

from __future__ import annotations

from collections.abc import Iterable

from controller.store.interface import JsonObject

_CONTAINER: JsonObject = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
_PROBE: JsonObject = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_POD: JsonObject = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "securityContext": {},
    "serviceAccount": "default",
    "serviceAccountName": "default",
}
_SERVICE: JsonObject = {
    "internalTrafficPolicy": "Cluster",
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "sessionAffinity": "None",
}


def fill_pod(spec: JsonObject) -> None:
    """Complete a pod's specification in place."""
    for name, value in _POD.items():
        spec.setdefault(name, value)
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        _fill_container(container)


def fill_service(spec: JsonObject) -> None:
    """Complete a Service's specification in place. No address is given out: there is no network here."""
    for name, value in _SERVICE.items():
        spec.setdefault(name, value)
    if spec.get("clusterIP") == "None":
        spec.setdefault("clusterIPs", ["None"])


def _fill_container(container: JsonObject) -> None:
    for name, value in _CONTAINER.items():
        container.setdefault(name, value)
    image = str(container.get("image", ""))
    container.setdefault("imagePullPolicy", "Always" if _newest(image) else "IfNotPresent")
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if name in container:
            for field, value in _PROBE.items():
                container[name].setdefault(field, value)
    for action in _actions(container):
        if "httpGet" in action:
            action["httpGet"].setdefault("scheme", "HTTP")


def _newest(image: str) -> bool:
    """Whether an image's tag may mean another image tomorrow: `latest`, or none at all."""
    name = image.rpartition("/")[2]
    return "@" not in image and (":" not in name or name.endswith(":latest"))


def _actions(container: JsonObject) -> Iterable[JsonObject]:
    yield from (
        container[name] for name in ("readinessProbe", "livenessProbe", "startupProbe") if name in container
    )
    yield from container.get("lifecycle", {}).values()
