"""The CustomResourceDefinitions: as objects, as the files of the chart, and installed on an API server.

`python -m controller.resources.crds` writes the files and the reference page of the kinds; `make crds` calls it, and a test fails when they are stale.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controller.resources.base import CATEGORY
from controller.resources.kinds import KINDS
from controller.resources.reference import PAGE, resources_page
from controller.resources.schema import crd
from controller.store.interface import JsonObject, NotFound, Resource, Store

FOLDER = Path("helm/plimsoll/files/crds")
"""Where the chart has them, from the root of the checkout."""

CRD = Resource(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
    has_status=True,
    generation=True,
)
"""CustomResourceDefinitions themselves, as the API addresses them."""

FIELD_MANAGER = f"{CATEGORY}-crds"
POLL_SECONDS = 0.1
GONE = "it is gone again"

_HEAD = """# {kind} of {group}, as the API server is told of it.
# Generated from the Python types by `make crds`: change those, not this.
"""


class _Dumper(yaml.SafeDumper):
    """Block style without anchors: a schema that occurs twice is written twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def definitions() -> list[JsonObject]:
    """The definition of each of our kinds, in the order of `KINDS`."""
    return [crd(kind) for kind in KINDS]


def files() -> Mapping[str, str]:
    """File name to text, one definition a file. The same types give the same bytes."""
    written = {}
    for definition in definitions():
        spec = definition["spec"]
        head = _HEAD.format(kind=spec["names"]["kind"], group=spec["group"])
        body = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        written[f"{spec['group']}_{spec['names']['plural']}.yaml"] = head + body
    return written


def write(folder: Path) -> list[Path]:
    """Make the folder hold exactly the definitions; the files that changed, those taken away included."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    changed = []
    for path in sorted(folder.glob("*.yaml")):
        if path.name not in wanted:
            path.unlink()
            changed.append(path)
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


class NotEstablished(RuntimeError):
    """A definition that the API server took but does not serve; the sentence has its own words on why."""


async def install(store: Store, given: Sequence[JsonObject] | None = None, *, seconds: float = 30.0) -> None:
    """Apply every definition (ours, unless others are given) server-side and wait until all are served.

    `store` must reach CustomResourceDefinitions (an API server). Raises `NotEstablished` when one is not served
    after `seconds`, and what the store raises, such as `Invalid` for a rule that costs too much.
    """
    wanted = definitions() if given is None else given
    unmade: Sequence[JsonObject] = wanted
    missing: dict[str, str] = {}
    for _ in range(math.ceil(seconds / POLL_SECONDS)):
        for definition in unmade:
            await store.apply(CRD, definition, field_manager=FIELD_MANAGER, force=True)
        missing = await _not_served(store, wanted)
        if not missing:
            return
        # One that was being deleted takes what is applied with it: it is applied again when it is gone.
        unmade = [each for each in wanted if missing.get(each["metadata"]["name"]) == GONE]
        await asyncio.sleep(POLL_SECONDS)
    told = "; ".join(f"{name}: {why}" for name, why in missing.items())
    raise NotEstablished(
        f"not served after {seconds:g} s: {told}. "
        "See `kubectl describe crd`, and remove a definition that claims the same names."
    )


async def _not_served(store: Store, wanted: Sequence[JsonObject]) -> dict[str, str]:
    """Why each definition that is not served is not, by name."""
    names = [definition["metadata"]["name"] for definition in wanted]
    found = await asyncio.gather(*(_complaint(store, name) for name in names))
    return {name: complaint for name, complaint in zip(names, found, strict=True) if complaint}


async def _complaint(store: Store, name: str) -> str:
    """Why a definition is not served yet; empty when it is."""
    try:
        live = await store.get(CRD, name)
    except NotFound:
        return GONE
    if live["metadata"].get("deletionTimestamp"):
        return "it is being deleted, with its objects"
    conditions = {c["type"]: c for c in (live.get("status") or {}).get("conditions") or ()}
    if conditions.get("Established", {}).get("status") == "True":
        return ""
    refused = conditions.get("NamesAccepted", {})
    return str(refused.get("message") if refused.get("status") == "False" else "no word yet")


if __name__ == "__main__":
    _ROOT = Path(__file__).parents[2]
    for written in write(_ROOT / FOLDER):
        sys.stdout.write(f"{written}\n")
    (_ROOT / PAGE).write_text(resources_page(), encoding="utf-8")
