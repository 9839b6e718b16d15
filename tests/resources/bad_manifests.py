"""All bad manifests, and what the API server answers to each: its own words, taken from a server of 1.36.3.

The embedded store answers the same, but for the rules in CEL (`RULED`, and `CHANGES` of `cel`), which it takes, and for
the few cases with words `apart`, which say why.
"""

from __future__ import annotations

from tests.resources.bad import Bad
from tests.resources.bad_others import DOMAINS, JOBS, PRODUCTS, STRANGE
from tests.resources.bad_pods import PODS, RULED_PODS
from tests.resources.bad_rules import CHANGES
from tests.resources.bad_rules import RULED as RULED_REST
from tests.resources.bad_services import SERVICES

BAD: tuple[Bad, ...] = (*SERVICES, *JOBS, *PRODUCTS, *DOMAINS, *PODS)
"""Refused with 422 because of the schema."""

RULED: tuple[Bad, ...] = (*RULED_REST, *RULED_PODS)
"""Each fits its schema; the embedded store takes it, and the loader and the operator refuse it."""

__all__ = ["BAD", "CHANGES", "RULED", "STRANGE"]
