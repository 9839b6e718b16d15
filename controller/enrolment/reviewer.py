"""Whose token it is: asked of the API server, which alone can tell (TokenReview)."""

from __future__ import annotations

from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from controller.enrolment.review import Review, ReviewFailed

USUAL_SECONDS = 5.0


class KubeReviewer:
    """TokenReviews over the official client, one request each, with a deadline and without retries: the agent
    comes again by itself.
    """

    def __init__(self, api: client.ApiClient, deadline_seconds: float = USUAL_SECONDS) -> None:
        """`api` is the operator's connection; its account may create tokenreviews and needs nothing else here."""
        self._reviews = client.AuthenticationV1Api(api)
        self._deadline_seconds = deadline_seconds

    async def review(self, token: str, audience: str) -> Review:
        """Ask the API server. Raises: ReviewFailed with a sentence that names status and what to do."""
        body = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token, audiences=[audience]))
        try:
            answer = await self._reviews.create_token_review(body, _request_timeout=self._deadline_seconds)
        except ApiException as error:  # its text may hold what the server was sent: only the status is told
            raise ReviewFailed(_sentence(error.status)) from None
        except TimeoutError:
            raise ReviewFailed(
                f"The API server did not answer a TokenReview in {self._deadline_seconds:g} s."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ReviewFailed(
                f"The API server cannot be reached for a TokenReview ({_kind(error)})."
            ) from None
        except ValueError:  # the client's models refuse what they do not know
            raise ReviewFailed("The API server's answer to a TokenReview cannot be read.") from None
        return _review_of(answer.status)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _sentence(status: int | None) -> str:
    if status in {401, 403}:
        return (
            f"The API server refuses the operator's TokenReviews ({status}): its account needs the right to create "
            "tokenreviews.authentication.k8s.io."
        )
    return f"The API server answered a TokenReview with status {status}."


def _review_of(status: Any) -> Review:
    if status is None:
        raise ReviewFailed("The API server's answer to a TokenReview has no status.")
    user = status.user
    return Review(
        authenticated=bool(status.authenticated),
        username=(user.username or "") if user else "",
        audiences=tuple(status.audiences or ()),
        extra={key: tuple(values) for key, values in ((user.extra or {}) if user else {}).items()},
        error=(status.error or "")[:512],
    )
