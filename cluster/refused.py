"""What was refused: an object whose pods the API server, or a webhook behind it, does not take for now."""

from __future__ import annotations

from cluster.base import Noun


class Refused(Noun, frozen=True, kw_only=True):
    """One object's standing refusal.

    `sentence` is the server's own, `code` its HTTP status. `attempts` failed in a row since `since_seconds`; the next
    comes `wait_seconds` after the last, at `until_seconds` (UTC seconds). Until then nothing is created for the object,
    and at that time one pod, as a try.
    """

    sentence: str
    code: int
    attempts: int
    since_seconds: float
    wait_seconds: float
    until_seconds: float

    def waits(self, now_seconds: float) -> bool:
        """Whether the next try is still to come."""
        return now_seconds < self.until_seconds
