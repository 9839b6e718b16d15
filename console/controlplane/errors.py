"""The one error of this package."""

from __future__ import annotations


class ControlPlaneError(Exception):
    """A control plane cannot be built, found, started or reached; the text says what, where and what to do."""
