"""What the API server says of a token, and who can be asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class ReviewFailed(Exception):
    """The API server did not answer, or not with a review. Says nothing about the token, and holds no part of it."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server says of a token. `extra` are the claims it authenticated beside the user's name."""

    authenticated: bool
    username: str = ""
    audiences: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = {}
    error: str = ""


class Reviewer(Protocol):
    """Who reviews tokens."""

    async def review(self, token: str, audience: str) -> Review:
        """What the token is worth for this audience. Raises: ReviewFailed."""
        ...
