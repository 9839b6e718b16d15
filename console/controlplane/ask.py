"""Plain requests to the components of a control plane: are you ready, make a namespace, compact.

Over TLS, with a deadline, one connection a request. Whoever needs lists and watches takes a real client.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from console.controlplane.certificates import Pair

LARGEST_ANSWER_BYTES = 64 * 1024 * 1024


class Unreachable(Exception):
    """Nobody answered: refused, reset, or too late."""


class Answer(Exception):
    """The server answered, and not with success. `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:500]}")
        self.status = status


class Door:
    """One server, and who we are there."""

    def __init__(self, port: int, authority: Path, user: Pair) -> None:
        """`authority` is the file of the root that the server's certificate must come from."""
        self._port = port
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(str(user.certificate), str(user.key))

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_seconds: float = 10.0,
        content_type: str = "application/json",
    ) -> Any:
        """The JSON of the answer, or its text when it is none.

        Raises: `Unreachable` when nobody answers in time, `Answer` for a status of 300 or more.
        """
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=timeout_seconds, context=self._context
        )
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if data else {})
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read(LARGEST_ANSWER_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {path} on port {self._port}: {error}") from error
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            raise Answer(answer.status, text)
        try:
            return json.loads(text)
        except ValueError:
            return text
