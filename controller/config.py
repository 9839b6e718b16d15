"""Settings of the operator, with units in names. A value out of range is refused with its name."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.leadership.lease import LeaseSettings
from controller.provisioning.settings import ProvisioningSettings

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


Account = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
]
"""A ServiceAccount, as `namespace/name`."""


class PolicyDefault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which policy decides where nobody chose one, and its settings."""

    name: str
    config: dict[str, object] = {}


class PodSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every pod of ours has in common.

    `engine_image`, `rank_image`: where the user names none. `priority_class`: a PriorityClass of the cluster, best
    one that never preempts (the chart has one): who gives way to whom is decided here, with a reason. Empty: the
    cluster's default. `run_as_user`: numeric user of the containers; 0 leaves it to the image, which a namespace of
    the level `restricted` refuses. `service_accounts`: accounts beside each namespace's `default` that pods may run
    as. Whoever may write our objects in such a namespace may use them; no other account is lent.
    """

    engine_image: str = "plimsoll/engine:0.1.0"
    rank_image: str = "plimsoll/trainer:0.1.0"
    priority_class: str = ""
    run_as_user: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 65_532
    service_accounts: tuple[Account, ...] = ()


class RestraintSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the operator may go.

    `mode`: `Recommend` shows what it would do and does nothing, in the whole cluster. `namespaces`: `labelled` ones
    are those with the label `plimsoll.dev/managed: "true"`; what is in others is left as it is. `moves_per_hour`: how
    many running pods it may move an hour by its own choice, in the whole cluster (None: as many as it takes).
    """

    mode: Literal["Auto", "Recommend"] = "Auto"
    namespaces: Literal["all", "labelled"] = "all"
    moves_per_hour: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class ProfileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is believed about the speed of GPUs beside the roofline.

    `folder`: profiles that `plimsoll profile import` wrote, such as a mounted ConfigMap; looked at every ten seconds. `measured`: the
    time per token of running engines is learned and comes before everything, and constants measured on silicon come before the
    roofline: `auto` where an agent says that its GPUs are real, `true` everywhere, `false` nowhere. `quantile`: where in the band of
    what was learned it is planned (0.5: at its middle).
    """

    folder: str = ""
    measured: bool | Literal["auto"] = "auto"
    quantile: Annotated[float, msgspec.Meta(ge=0.5, lt=1.0)] = 0.84


class OperatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the operator runs.

    The planner runs on change after `debounce_seconds`, and at least every `plan_seconds`; `seed` feeds
    tie ranks and every policy's random stream. `action_seconds` is how long an action stays valid. `threaded` lets the planner decide in a thread of its own
    and renews power leases in a task of their own (real time); accelerated time needs it off. `writes_at_once` actions
    wait for the store together. `gateway_url` is where clients reach the gateways
    (`https://plimsoll-gateway.plimsoll-system.svc`); a service's address is its namespace and name below it. Empty:
    no address is told. `api_requests_per_second` and `api_burst` bound what the operator asks of an API server by itself
    (Kueue's defaults); raise them where the server's own priority and fairness is to decide.
    """

    seed: int = 1
    identity: str = "plimsoll"
    lease: LeaseSettings = LeaseSettings()
    namespace: str = "plimsoll-system"
    plan_seconds: Positive = 10.0
    debounce_seconds: float = 0.2
    power_seconds: Positive = 1.0
    state_seconds: Positive = 10.0
    status_seconds: Positive = 1.0
    measure_seconds: Positive = 5.0
    action_seconds: Positive = 30.0
    plan_units: int = 1_000_000
    records_kept: int = 0
    threaded: bool = False
    api_requests_per_second: Positive = 300.0
    api_burst: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    writes_at_once: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    gateway_url: str = ""
    pods: PodSettings = PodSettings()
    restraint: RestraintSettings = RestraintSettings()
    profiles: ProfileSettings = ProfileSettings()
    provisioning: ProvisioningSettings = ProvisioningSettings()
    policies: dict[str, PolicyDefault] = {}
