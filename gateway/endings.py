"""Why a request ended otherwise than served: code and sentence, for clients and for accounting."""

from __future__ import annotations

SENTENCES = {
    "RejectCap": "The service has no instance ready and its hold queue is full; try again in {retry_after:.0f} s.",
    "RejectDeadline": "No instance became ready within {waited:.1f} s; try again in {retry_after:.0f} s.",
    "RejectTooLong": "{tokens} tokens of prompt and output are more than any instance of the service can hold.",
    "RejectNoService": "The gateway has no route for service {service!r}; check the name and that it is Accepted.",
    "RejectOverload": "The gateway has {open} requests open, its limit; try again in {retry_after:.0f} s.",
    "RejectInvalid": "The request is not valid: {fault}.",
    "LostDeadline": "The instance was lost and no other became ready within {waited:.1f} s.",
    "LostOwners": "{owners} instances in turn were given the request and lost or refused it: {fault}",
    "LostService": "Service {service!r} was removed while the request ran.",
    "ClientDeadline": "The client's own deadline passed {waited:.1f} s after the request arrived.",
    "ClientGone": "The client closed its stream or cancelled the request.",
}


def sentence(code: str, **facts: object) -> str:
    """Render a code with its facts.

    Raises KeyError when the code is not declared or a fact that its sentence needs is missing: a mistake here.
    """
    return SENTENCES[code].format(**facts)
