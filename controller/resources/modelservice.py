"""ModelService: serve a model under a latency objective (DESIGN §4)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.resources.base import (
    API_VERSION,
    NAME_PATTERN,
    AcceleratorName,
    ApiStruct,
    Conditions,
    ObjectMeta,
    PolicyChoice,
    Precision,
    about,
    above,
    chosen,
    items,
    number,
    text,
    whole,
)
from controller.resources.podpart import MOST_WORDS, PodPart, Words

Mode = Literal["Auto", "Recommend", "Off"]


class ServedModel(ApiStruct, frozen=True, kw_only=True):
    """The model: a name of the shipped catalogue, or a name and its shape."""

    name: Annotated[
        str,
        text("Name of a model of the shipped catalogue, or a new name with its shape given here.", 128, 1),
    ]
    parameters: Annotated[int, whole("Number of parameters.", 1, 10**14)] | None = None
    layers: Annotated[int, whole("Number of transformer layers.", 1, 1_000)] | None = None
    hidden_size: Annotated[int, whole("Width of the residual stream.", 1, 1_000_000)] | None = None
    kv_heads: Annotated[int, whole("Number of key-value heads.", 1, 1_024)] | None = None
    head_dim: Annotated[int, whole("Width of one head.", 1, 4_096)] | None = None
    weight_bytes: Annotated[int, whole("Bytes of all weights as served.", 1, 10**14)] | None = None
    kv_bytes_per_token: (
        Annotated[int, whole("Bytes of KV cache one token takes, all layers together.", 1, 10**9)] | None
    ) = None
    max_context_tokens: Annotated[int, whole("Longest context, prompt and answer.", 1, 10**8)] | None = None


class Objective(ApiStruct, frozen=True, kw_only=True):
    """A latency promise for one class of requests, and what breaking it costs."""

    request_class: Annotated[str, text("Class of requests; one entry a class.", 63, 1, NAME_PATTERN)] = (
        msgspec.field(name="class", default="default")
    )
    ttft_seconds: Annotated[float, above("Longest time to the first token.", 0.0, 86_400.0)]
    tpot_seconds: Annotated[float, above("Longest mean time per further token.", 0.0, 3_600.0)]
    percentile: Annotated[
        float, msgspec.Meta(description="Share of requests that must meet both.", gt=0.0, lt=1.0)
    ] = 0.95
    priority: Annotated[
        int, whole("Who is served first when not all can be; higher first.", -1_000, 1_000)
    ] = 0
    unserved_dollars_per_hour: Annotated[
        float, number("What leaving one request per second unserved for an hour costs.", 0.0, 1e9)
    ] = 50.0
    max_spot_share: Annotated[
        float, number("Most of the class's requests that may be served on spot pools, as a share.", 0.0, 1.0)
    ] = 1.0
    survive_loss: Annotated[
        bool,
        about(
            "Whether what is left of the service is to carry all of the class when any one replica is lost; what it could "
            "not is priced like unserved load, and told."
        ),
    ] = False


class AllowedVariant(ApiStruct, frozen=True, kw_only=True):
    """One way the model may be run."""

    accelerator: AcceleratorName
    gpus: Annotated[int, whole("GPUs of one replica.", 1, 64)] = 1
    gpu_milli: Annotated[
        int,
        whole(
            "Thousandths of its one GPU, memory and compute alike, that a replica gets; 1000 is a whole one. Less only where"
            " the AcceleratorClass has `sharing: dra` and names `dra.shareCapacities`.",
            1,
            1_000,
        ),
    ] = 1_000
    precision: Precision = "bf16"


class ExpectedLoad(ApiStruct, frozen=True, kw_only=True):
    """The load the user expects; planned for until load has been measured."""

    requests_per_second: Annotated[float, number("Mean request rate.", 0.0, 1e6)] = 0.0
    input_tokens: Annotated[float, number("Mean prompt length.", 0.0, 1e8)] = 1_000.0
    output_tokens: Annotated[float, number("Mean answer length.", 0.0, 1e8)] = 200.0


class Hold(ApiStruct, frozen=True, kw_only=True):
    """How many requests wait, and how long, while the service has no ready replica."""

    max_requests: Annotated[int, whole("Most requests held at once; 0 refuses at once.", 0, 1_000_000)] = (
        1_000
    )
    deadline_seconds: Annotated[float, number("Longest a request is held.", 0.0, 86_400.0)] = 300.0
    max_bytes: Annotated[int, whole("Most bytes of held request bodies.", 0, 10**12)] = 67_108_864


class Disruption(ApiStruct, frozen=True, kw_only=True):
    """How much of the service the operator may disturb by its own choice: for a better mix, fewer nodes, a new revision."""

    moves_per_hour: (
        Annotated[
            int,
            whole(
                "Running replicas it may move within an hour; 0 moves none, absent sets no limit. What falling load no "
                "longer needs, and what leaves with its node, is no move.",
                0,
                100_000,
            ),
        ]
        | None
    ) = None


class Moved(ApiStruct, frozen=True, kw_only=True):
    """Moves of one minute."""

    at: Annotated[str, text("The minute they began in, RFC 3339 in UTC.", 32, 1)]
    count: Annotated[int, whole("Replicas moved.", 1, 1_000_000)]


class ServicePolicies(ApiStruct, frozen=True, kw_only=True):
    """Which policy decides each question; what is absent is decided by the cluster's default."""

    select: Annotated[PolicyChoice, chosen("select", "Which GPU mix could serve.")] | None = None
    scale: Annotated[PolicyChoice, chosen("scale", "How much capacity there should be.")] | None = None
    warm: Annotated[PolicyChoice, chosen("warm", "How warm idle capacity is kept.")] | None = None
    dispatch: Annotated[PolicyChoice, chosen("dispatch", "Which replica takes a request.")] | None = None
    migration: Annotated[PolicyChoice, chosen("migration", "Which running requests move.")] | None = None


class ModelServiceSpec(ApiStruct, frozen=True, kw_only=True):
    """What the user wants served, and how well."""

    model: Annotated[ServedModel, about("The model to serve.")]
    objectives: Annotated[
        list[Objective], items("Latency objectives, one a class of requests.", 8, keys=("class",))
    ] = []
    accelerators: Annotated[
        list[AcceleratorName], items("AcceleratorClasses that may be used; empty means any.", 32, unique=True)
    ] = []
    variants: Annotated[
        list[AllowedVariant],
        items(
            "Ways to run the model, each given once; empty means all that fit. The first one is the reference.",
            32,
            keys=("accelerator", "gpus", "gpuMilli", "precision"),
        ),
    ] = []
    image: Annotated[str, text("Container image of the engine; empty means the operator's default.", 512)] = (
        ""
    )
    command: Annotated[Words, items("Command of the engine; empty means the image's own.", MOST_WORDS)] = []
    args: Annotated[Words, items("Arguments of the command; empty means the image's own.", MOST_WORDS)] = []
    pod: Annotated[PodPart, about("Your part of each replica's pod.")] = PodPart()
    replicas: Annotated[
        int,
        whole(
            "Wanted size in units of the reference variant. Yours and an HPA's, never written by the "
            "operator: a floor in mode Auto, the exact size in Off.",
            0,
            10_000,
        ),
    ] = 0
    min_replicas: Annotated[int, whole("Least size the operator may choose.", 0, 10_000)] = 0
    max_replicas: Annotated[int, whole("Greatest size the operator may choose.", 0, 10_000)] = 1_000
    mode: Annotated[
        Mode,
        about(
            "Auto decides and acts; Recommend says what it would do and touches nothing; Off serves `replicas`."
        ),
    ] = "Auto"
    expected_load: Annotated[ExpectedLoad, about("Load to plan for until load has been measured.")] | None = (
        None
    )
    hold: Annotated[Hold, about("Waiting room of requests while nothing is ready.")] = Hold()
    keep_alive_seconds: Annotated[
        float, number("How long idle capacity is kept before the service goes to zero.", 0.0, 604_800.0)
    ] = 600.0
    drain_seconds: Annotated[
        float, number("How long a replica that must go may finish its requests.", 0.0, 86_400.0)
    ] = 60.0
    violation_budget: Annotated[
        float, number("Share of time in which too little capacity is accepted.", 0.0, 0.5)
    ] = 0.01
    disruption: Annotated[Disruption, about("How much may be disturbed by the operator's own choice.")] = (
        Disruption()
    )
    policies: Annotated[ServicePolicies, about("Policies of this service.")] = ServicePolicies()


class RolloutStatus(ApiStruct, frozen=True, kw_only=True):
    """Replicas by revision: what an engine is started from is one, named by its content."""

    current_revision: Annotated[str, text("Newest revision that was complete; what is gone back to.", 63)] = (
        ""
    )
    updated_revision: Annotated[str, text("Revision of the specification as it is now.", 63)] = ""
    revision: Annotated[
        int, whole("Number of the updated revision, as `plimsoll rollout history` lists it.")
    ] = 0
    wanted: Annotated[int, whole("Replicas wanted in all.", 0, 1_000_000)] = 0
    updated: Annotated[int, whole("Replicas of the updated revision.", 0, 1_000_000)] = 0
    ready: Annotated[int, whole("Of them those that take requests.", 0, 1_000_000)] = 0
    old: Annotated[int, whole("Replicas of any other revision.", 0, 1_000_000)] = 0
    old_ready: Annotated[int, whole("Of them those that take requests.", 0, 1_000_000)] = 0


class ModelServiceStatus(ApiStruct, frozen=True, kw_only=True):
    """What is served now, and why so."""

    phase: Annotated[
        Literal["Pending", "Starting", "Serving", "Degraded", "AtZero", "Refused"],
        about("State in one word."),
    ] = "Pending"
    ready: Annotated[int, whole("Replicas that take requests.", 0, 1_000_000)] = 0
    replicas: Annotated[
        int, whole("Size in units of the reference variant; what an HPA reads.", 0, 1_000_000)
    ] = 0
    selector: Annotated[str, text("Label selector of the service's pods; what an HPA reads.", 512)] = ""
    gpus: Annotated[int, whole("GPUs in use.", 0, 10_000_000)] = 0
    mix: Annotated[str, text("The GPU mix in words, such as `2 a100-80 + 1 l4`.", 512)] = ""
    cost_per_hour: Annotated[float, number("Dollars per hour of the GPUs in use.", 0.0, 1e9)] = 0.0
    why: Annotated[str, text("Code of the reason of the last decision.", 128)] = ""
    url: Annotated[str, text("Where requests are sent.", 512)] = ""
    moves: Annotated[
        list[Moved], items("Replicas moved in the last hour by the operator's own choice, by minute.", 64)
    ] = []
    rollout: Annotated[RolloutStatus, about("How far a change of what runs has come.")] = RolloutStatus()
    conditions: Conditions = []
    observed_generation: Annotated[int, whole("metadata.generation this status answers.")] = 0


class ModelService(ApiStruct, frozen=True, kw_only=True):
    """Serves a model under latency objectives on the cheapest GPUs that meet them."""

    api_version: str = API_VERSION
    kind: str = "ModelService"
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[ModelServiceSpec, about("What is wanted.")]
    status: Annotated[ModelServiceStatus, about("What is, written by the operator.")] = ModelServiceStatus()
