"""All bad manifests, and what the API server answers to each: its own words, taken from a server of 1.36.3.

The embedded store answers the same, but for the rules in CEL (`RULED`, and `CHANGES` of `cel`), which it takes, and for
the few cases with words `apart`, which say why.
"""

from __future__ import annotations

from tests.resources.bad import Bad
from tests.resources.bad_others import DOMAINS, JOBS, PRODUCTS, STRANGE
from tests.resources.bad_rules import CHANGES, RULED
from tests.resources.bad_services import SERVICES

BAD: tuple[Bad, ...] = (*SERVICES, *JOBS, *PRODUCTS, *DOMAINS)
"""Refused with 422 because of the schema."""

__all__ = ["BAD", "CHANGES", "RULED", "STRANGE"]
