"""Fixed keep-alive: until when the last replica stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.reasons import render
from cluster.targets import Warm
from policies.warm.fixed_keepalive import FixedKeepalive, FixedKeepaliveConfig
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context

SERVICE = "shop/chat"


def cluster() -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(1, "l4-od")
    return made.with_service(SERVICE, "L4", keep_alive_seconds=600.0).with_replica(SERVICE, "L4", "l4-od-0")


def standing(until: float) -> Warm:
    return Warm(
        owner="warm", decided_seconds=NOW, service=SERVICE, copies={"awake": 1}, keep_until_seconds=until
    )


def keep(made: ClusterBuilder, **config: Any) -> tuple[float | None, list[str]]:
    policy = FixedKeepalive(FixedKeepaliveConfig(**config))
    plan = policy.decide(made.build(), policy.initial(), context(loop="warm")).plan
    for reason in plan.reasons:
        assert render(reason)
    targets = [t for t in plan.targets if isinstance(t, Warm)]
    return (targets[0].keep_until_seconds if targets else None), [r.code for r in plan.reasons]


CASES = [
    # signal, standing, keep until, codes
    pytest.param({"requests_per_second": 3.0, "last_arrival_seconds": NOW}, None, NOW + 600, [], id="busy: a keep-alive from now"),
    pytest.param({"requests_per_second": 0.0, "last_arrival_seconds": NOW - 100}, None, NOW + 500, ["KeptWarm"], id="idle: a keep-alive from the last arrival"),
    pytest.param({"requests_per_second": 0.0, "last_arrival_seconds": NOW - 700}, None, NOW - 100, ["WentCold"], id="idle for longer: over"),
    pytest.param({"requests_per_second": 3.0, "last_arrival_seconds": NOW}, NOW + 570, None, [], id="busy, and the target lags a little: left alone"),
    pytest.param({"requests_per_second": 3.0, "last_arrival_seconds": NOW}, NOW + 500, NOW + 600, [], id="busy, and it lags much: renewed"),
    pytest.param({"requests_per_second": 0.0, "last_arrival_seconds": NOW - 1}, NOW + 570, NOW + 599, ["KeptWarm"], id="just idle: exact at once"),
    pytest.param({}, None, NOW + 600, [], id="never called: one keep-alive from when it is first seen"),
    pytest.param({}, NOW + 20, None, ["KeptWarm"], id="never called, and seen before: not renewed"),
    pytest.param({}, NOW - 20, None, ["WentCold"], id="never called, keep-alive over"),
    pytest.param({"requests_per_second": np.nan, "last_arrival_seconds": NOW - 700}, NOW - 100, NOW + 600, [], id="rate unknown: kept"),
    pytest.param({"requests_per_second": 0.0, "last_arrival_seconds": NOW - 700, "observed_seconds": NOW - 90}, NOW - 100, NOW + 600, [], id="an old measurement: kept"),
]  # fmt: skip


@pytest.mark.parametrize(("signal", "stands", "until", "codes"), CASES)
def test_the_last_replica_is_kept(
    signal: dict[str, float], stands: float | None, until: float | None, codes: list[str]
):
    made = cluster()
    if signal:
        made.with_signal(SERVICE, held=0.0, **signal)
    if stands is not None:
        made.with_target(standing(stands))
    assert keep(made) == (until, codes)


def test_held_requests_are_use():
    made = cluster().with_signal(SERVICE, requests_per_second=0.0, held=2.0, last_arrival_seconds=NOW - 700.0)
    assert keep(made)[0] == NOW + 600.0


def test_the_clusters_own_keep_alive_overrides():
    made = cluster().with_signal(SERVICE, requests_per_second=0.0, held=0.0, last_arrival_seconds=NOW - 100.0)
    assert keep(made, keep_alive_seconds=60.0)[0] == NOW - 40.0
