"""The user's part of a pod, laid into the pod that the operator writes.

What decides where a pod runs, which devices it has and who it belongs to is the operator's and stays as it was; the rest
is as the user says it, and as `restricted` as it can be where the user says nothing (docs/designs/0012-user-part.md).
"""

from __future__ import annotations

from typing import Any

from controller.config import PodSettings
from controller.resources.base import render
from controller.resources.podpart import PodSecurity, Wish

JsonObject = dict[str, Any]


def lay(pod: JsonObject, wish: Wish, settings: PodSettings) -> None:
    """Lay the wish into a pod of one container. Names of ours win over the user's, which no rule lets through anyway."""
    part, meta, spec = wish.pod, pod["metadata"], pod["spec"]
    meta["labels"] = {**part.labels, **meta["labels"]}
    meta["annotations"] = {**part.annotations, **meta["annotations"]}
    spec["tolerations"] = [*spec["tolerations"], *(_toleration(each) for each in part.tolerations)]
    spec["securityContext"] = _security(spec["securityContext"], part.security_context)
    # Never `priority`: admission computes it from the class and refuses another number.
    priority = part.priority_class_name or settings.priority_class
    if priority:
        spec["priorityClassName"] = priority
    if part.service_account_name not in ("", "default"):
        # Who allowed the account in the operator's list wants it used: its token is there.
        spec |= {"serviceAccountName": part.service_account_name, "automountServiceAccountToken": True}
    if part.image_pull_secrets:
        spec["imagePullSecrets"] = [render(each) for each in part.image_pull_secrets]
    if part.volumes:
        spec["volumes"] = [_without_defaults(each) for each in part.volumes]
    _lay_container(spec["containers"][0], wish)


def _lay_container(container: JsonObject, wish: Wish) -> None:
    part = wish.pod
    if wish.command:
        container["command"] = list(wish.command)
    if wish.args:
        container["args"] = list(wish.args)
    # Ours come first: a value of the user's may name them, as $(RANK).
    container["env"] = [*container["env"], *(_without_defaults(each) for each in part.env)]
    if part.env_from:
        container["envFrom"] = [_without_defaults(each) for each in part.env_from]
    if part.image_pull_policy is not None:
        container["imagePullPolicy"] = part.image_pull_policy
    if part.volume_mounts:
        container["volumeMounts"] = [_without_defaults(each) for each in part.volume_mounts]
    own = part.container_security_context
    security = container["securityContext"]
    if own.read_only_root_filesystem:
        security["readOnlyRootFilesystem"] = True
    if own.capabilities.add:
        security["capabilities"] = {**security["capabilities"], "add": list(own.capabilities.add)}


def _security(ours: JsonObject, wanted: PodSecurity) -> JsonObject:
    """As whom the program runs: the user's word over the operator's setting."""
    said = _without_defaults(wanted)
    merged = {**ours, **said}
    if wanted.run_as_user is not None:
        merged["runAsNonRoot"] = wanted.run_as_user != 0
        if not wanted.run_as_user:
            # Root's own group, unless the user names another: the setting is for the user it belongs to.
            merged["runAsGroup"] = wanted.run_as_group or 0
    return merged


def _toleration(toleration: Any) -> JsonObject:
    return {name: value for name, value in render(toleration).items() if value != ""}


def _without_defaults(struct: Any) -> JsonObject:
    """As the user wrote it, without what only our defaults say."""
    return _said(render(struct))


def _said(value: JsonObject) -> JsonObject:
    kept: JsonObject = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            kept[name] = _said(inner)  # an empty one says something: emptyDir
        elif inner not in ("", False, []):
            kept[name] = inner
    return kept
