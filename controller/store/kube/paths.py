"""Where an object, a collection or a subresource is found, and what a request adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from controller.store.errors import BadRequest
from controller.store.interface import Resource


def collection(resource: Resource, namespace: str = "") -> str:
    """Path of a kind's objects: in one namespace, or in all when it is "" (and for cluster-scoped kinds)."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if namespace and resource.namespaced:
        return f"{root}/namespaces/{segment(namespace, 'namespace')}/{resource.plural}"
    return f"{root}/{resource.plural}"


def member(resource: Resource, name: str, namespace: str = "", subresource: str = "") -> str:
    """Path of one object or of a subresource of it. Raises `BadRequest` for a name that cannot be in a path."""
    if resource.namespaced and not namespace:
        raise BadRequest(f"an empty namespace may not be given when one of {resource.qualified} is named")
    path = f"{collection(resource, namespace)}/{segment(name, 'name')}"
    return f"{path}/{subresource}" if subresource else path


def segment(word: str, what: str) -> str:
    """A name as one segment of a path. Raises `BadRequest` for what would lead elsewhere."""
    if word in {"", ".", ".."}:
        raise BadRequest(f"{word!r} is no {what}: give the object's own")
    return quote(word, safe="")


def query(given: Mapping[str, str | int | bool | None]) -> str:
    """Parameters as they stand behind the question mark; those that are None or "" are left out."""
    kept = {
        key: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for key, value in given.items()
        if value is not None and value != ""
    }
    return urlencode(kept)
