"""What the types of all our kinds share: metadata, conditions, policy choices and field descriptions.

Field names are snake_case here and camelCase in JSON. Reading is lenient (an object written by a newer
version still decodes); strictness is the schema's, which is generated from these same types.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

GROUP = "plimsoll.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "plimsoll"

NAME_LIMIT = 40
"""Longest name of our own namespaced kinds: names of pods and Services derive from it and must fit in 63."""

WHOLE_MAX = 2**53 - 1
"""Largest integer a field may allow: the server keeps bounds as float64 and refuses every value under a larger one."""

LABEL_PATTERN = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
POLICY_PATTERN = r"^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
OBJECT_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Names of ModelServices and TrainingJobs: a Service may be called as they are, so they begin with a letter."""

POLICY_LOOP = "policyLoop"
"""Marks a field whose policy names come from the registry; the schema's generator takes it away."""

DATE_PATTERN = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


def whole(description: str, low: int = 0, high: int = WHOLE_MAX) -> msgspec.Meta:
    """Describe an integer field between two bounds, both included."""
    return msgspec.Meta(description=description, ge=low, le=high)


def number(description: str, low: float = 0.0, high: float = 1e15) -> msgspec.Meta:
    """Describe a float field between two bounds, both included."""
    return msgspec.Meta(description=description, ge=low, le=high)


def above(description: str, low: float = 0.0, high: float = 1e15) -> msgspec.Meta:
    """Describe a float field that must be greater than `low`."""
    return msgspec.Meta(description=description, gt=low, le=high)


def text(description: str, longest: int, shortest: int = 0, pattern: str | None = None) -> msgspec.Meta:
    """Describe a string field by its length in characters and, where given, a pattern."""
    return msgspec.Meta(
        description=description,
        min_length=shortest or None,
        max_length=longest,
        pattern=pattern,
    )


def about(description: str) -> msgspec.Meta:
    """Describe a field that has no bounds of its own (an object, a boolean, an enumeration)."""
    return msgspec.Meta(description=description)


def items(description: str, most: int, *, keys: tuple[str, ...] = (), unique: bool = False) -> msgspec.Meta:
    """Describe a list of at most `most` items: keyed by fields, a set, or replaced as one value.

    `keys` make it a list map: two items with equal keys are refused, and server-side apply merges by key.
    """
    extra: dict[str, Any] = {"x-kubernetes-list-type": "map" if keys else "set" if unique else "atomic"}
    if keys:
        extra["x-kubernetes-list-map-keys"] = list(keys)
    return msgspec.Meta(description=description, max_length=most, extra_json_schema=extra)


def entries(description: str, most: int, fewest: int = 0) -> msgspec.Meta:
    """Describe a string-keyed map of `fewest` to `most` entries."""
    return msgspec.Meta(description=description, min_length=fewest or None, max_length=most)


def date(description: str) -> msgspec.Meta:
    """Describe a day, written as YYYY-MM-DD.

    By a pattern: under `format: date` the server of 1.36.3 takes a list or a number where a string is due (measured).
    """
    return msgspec.Meta(description=description, max_length=10, pattern=DATE_PATTERN)


def chosen(loop: str, description: str) -> msgspec.Meta:
    """Describe a choice among the policies of one decision loop; their names stand in the schema."""
    return msgspec.Meta(description=description, extra_json_schema={POLICY_LOOP: loop})


class ApiStruct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Base of every type that appears in an object: frozen, camelCase in JSON; trees, so the collector skips them."""


class OwnerReference(ApiStruct, frozen=True, kw_only=True):
    """Names the object whose deletion takes this one with it."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(ApiStruct, frozen=True, kw_only=True):
    """The part of metadata that the operator reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []

    @property
    def key(self) -> str:
        """`namespace/name`, or the name alone for cluster-scoped objects."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Condition(ApiStruct, frozen=True, kw_only=True):
    """One observed aspect of an object, in the form all of Kubernetes uses."""

    type: Annotated[str, text("Aspect, in CamelCase; one entry a type.", 316, 1, r"^[A-Za-z][A-Za-z0-9]*$")]
    status: Annotated[Literal["True", "False", "Unknown"], about("Whether the aspect holds.")]
    reason: Annotated[
        str, text("Code of the reason, the same that events and metrics carry.", 1024, 1, r"^[A-Za-z]\w*$")
    ]
    message: Annotated[str, text("The reason as a sentence with its numbers.", 1024)]
    observed_generation: Annotated[int, whole("metadata.generation this was decided for.")] = 0
    last_transition_time: Annotated[
        str, text("When `status` last changed, RFC 3339 in UTC.", 32, 1, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    ]


Conditions = Annotated[list[Condition], items("Observed aspects of this object.", 8, keys=("type",))]


class PolicyChoice(ApiStruct, frozen=True, kw_only=True):
    """Which policy decides, and how it is set."""

    name: Annotated[str, text("Name of the policy, as `plimsoll policies` lists it.", 63, 1, POLICY_PATTERN)]
    config: Annotated[
        dict[str, Any],
        msgspec.Meta(
            description="Settings of the policy; an unknown one is refused with its path.",
            max_length=64,
            extra_json_schema={"x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = {}


AcceleratorName = Annotated[str, text("Name of an AcceleratorClass.", 63, 1, SUBDOMAIN_PATTERN)]
PrecisionWord = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionWord)
Precision = Annotated[PrecisionWord, about("Number format of weights and arithmetic.")]


def render(value: msgspec.Struct) -> dict[str, Any]:
    """The struct as plain JSON types, without the fields that are None.

    None means "not given", and a null sent to the API server would mean "remove".
    """
    plain = msgspec.to_builtins(value)
    cleaned: dict[str, Any] = _without_none(plain)
    return cleaned


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
