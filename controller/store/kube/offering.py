"""Which versions of somebody else's kind an API server offers, by discovery: every account may read that."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.store.errors import NotFound, Unavailable
from controller.store.kube.transport import Transport


async def served(transport: Transport, group: str, plural: str) -> tuple[str, ...]:
    """Versions of `group` that have `plural`, as the server orders them. Raises what the transport raises."""
    found = []
    for each in (await _asked(transport, f"/apis/{group}")).get("versions") or ():
        version = str(each.get("version"))
        resources = (await _asked(transport, f"/apis/{group}/{version}")).get("resources") or ()
        if any(resource.get("name") == plural for resource in resources):
            found.append(version)
    return tuple(found)


async def _asked(transport: Transport, path: str) -> dict[str, Any]:
    try:
        raw = await transport.read(path, {}, f"discover {path}")
        answer: dict[str, Any] = msgspec.json.decode(raw, type=dict)
    except NotFound:
        return {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(f"discover {path}: the answer is no object ({error})") from error
    return answer
