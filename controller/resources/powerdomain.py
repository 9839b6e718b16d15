"""PowerDomain: a breaker, what draws through it and who keeps it below its rating (DESIGN §4)."""

from __future__ import annotations

from typing import Annotated, Literal

from controller.resources.base import (
    API_VERSION,
    LABEL_PATTERN,
    SUBDOMAIN_PATTERN,
    ApiStruct,
    Conditions,
    ObjectMeta,
    PolicyChoice,
    about,
    chosen,
    entries,
    items,
    number,
    text,
    whole,
)

LabelValue = Annotated[str, text("A label's value.", 63, 0, LABEL_PATTERN)]


class LabelRequirement(ApiStruct, frozen=True, kw_only=True):
    """One requirement on a label."""

    key: Annotated[str, text("Name of the label.", 317, 1)]
    operator: Annotated[Literal["In", "NotIn", "Exists", "DoesNotExist"], about("How values are compared.")]
    values: Annotated[list[LabelValue], items("Values for In and NotIn.", 64)] = []


class LabelSelector(ApiStruct, frozen=True, kw_only=True):
    """Nodes by their labels; all requirements must hold."""

    match_labels: Annotated[dict[str, LabelValue], entries("Labels that must have these values.", 16)] = {}
    match_expressions: Annotated[list[LabelRequirement], items("Further requirements.", 16)] = []


class DomainMembers(ApiStruct, frozen=True, kw_only=True):
    """What draws through the breaker: nodes by name, and nodes by label."""

    nodes: Annotated[
        list[Annotated[str, text("Name of a node.", 253, 1, SUBDOMAIN_PATTERN)]],
        items("Nodes by name.", 5_000, unique=True),
    ] = []
    selector: Annotated[LabelSelector, about("Nodes by label.")] | None = None


class PowerDomainSpec(ApiStruct, frozen=True, kw_only=True):
    """The breaker."""

    rating_watts: Annotated[int, whole("What the breaker carries for ever.", 1, 10**10)]
    margin_fraction: Annotated[float, number("Share of the rating that is never planned for.", 0.0, 0.9)] = (
        0.05
    )
    serving_watts: (
        Annotated[
            int,
            whole(
                "Watts that the GPUs of replicas below it may be planned to draw, at their TDP; absent plans replicas "
                "without regard to watts. It holds for pools all of whose nodes are below it.",
                0,
                10**10,
            ),
        ]
        | None
    ) = None
    parent: Annotated[str, text("PowerDomain this one draws through; empty means it is a root.", 253)] = ""
    members: Annotated[DomainMembers, about("What draws through it.")] = DomainMembers()
    policy: (
        Annotated[PolicyChoice, chosen("power", "Who sets the caps; absent means the cluster's default.")]
        | None
    ) = None


class PowerDomainStatus(ApiStruct, frozen=True, kw_only=True):
    """What the breaker carries and may carry."""

    phase: Annotated[
        Literal["Pending", "Within", "Capped", "Degraded", "Refused"], about("State in one word.")
    ] = "Pending"
    nodes: Annotated[int, whole("Nodes that draw through it, children included.", 0, 10**6)] = 0
    limit_watts: Annotated[int, whole("Rating after feeds and margin.", 0, 10**10)] = 0
    granted_watts: Annotated[int, whole("Sum of what nodes may draw now.", 0, 10**10)] = 0
    drawn_watts: Annotated[int, whole("Sum of what nodes drew at their last report.", 0, 10**10)] = 0
    uncapped_watts: Annotated[int, whole("What they would draw without caps.", 0, 10**10)] = 0
    why: Annotated[str, text("Code of the reason of the last decision.", 128)] = ""
    conditions: Conditions = []
    observed_generation: Annotated[int, whole("metadata.generation this status answers.")] = 0


class PowerDomain(ApiStruct, frozen=True, kw_only=True):
    """A breaker: its rating, what draws through it, and the policy that keeps it safe."""

    api_version: str = API_VERSION
    kind: str = "PowerDomain"
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[PowerDomainSpec, about("The breaker.")]
    status: Annotated[PowerDomainStatus, about("What is, written by the operator.")] = PowerDomainStatus()
