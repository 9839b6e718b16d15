"""Answers that are whole: lists, page by page, and refusals."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from benchmarks.listwatch.collection import Collection, Snapshot
from benchmarks.listwatch.faults import REASONS


def response(code: int, body: bytes, headers: str = "") -> bytes:
    """An HTTP answer with its length."""
    phrase = HTTPStatus(code).phrase
    head = f"HTTP/1.1 {code} {phrase}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def status(code: int, message: str, retry_after_seconds: int = 0) -> bytes:
    """A Status as the API server words it."""
    details = {"retryAfterSeconds": retry_after_seconds} if retry_after_seconds else {}
    return msgspec.json.encode(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": REASONS.get(code, HTTPStatus(code).phrase.replace(" ", "")),
            "details": details,
            "code": code,
        }
    )


def refusal(code: int, message: str, retry_after_seconds: int = 0) -> bytes:
    """An answer that is none."""
    headers = f"Retry-After: {retry_after_seconds}\r\n" if retry_after_seconds else ""
    return response(code, status(code, message, retry_after_seconds), headers)


def list_body(collection: Collection, parameters: dict[str, str], *, stale: bool) -> bytes:
    """One page, or 410 for a list that went on for too long."""
    name, _, offset = parameters.get("continue", "").partition(":")
    snapshot: Snapshot | None
    if name:
        snapshot = collection.kept(name)
        if snapshot is None:
            return refusal(
                410, "The provided continue parameter is too old to display a consistent list result."
            )
    else:
        snapshot = (collection.former if stale else None) or collection.snapshot()
    begin = int(offset or 0)
    limit = int(parameters.get("limit") or 0) or len(snapshot.items)
    end = begin + limit
    left = max(0, len(snapshot.items) - end)
    token = f"{name or collection.keep(snapshot)}:{end}" if left else ""
    head = {"resourceVersion": str(snapshot.version)}
    if left:
        head |= {"continue": token, "remainingItemCount": left}  # type: ignore[dict-item]
    body = b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
        collection.kind.encode(),
        collection.api_version.encode(),
        msgspec.json.encode(head),
        b",".join(snapshot.items[begin:end]),
    )
    return response(200, body)
