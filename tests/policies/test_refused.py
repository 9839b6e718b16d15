"""An object whose pods the API server refuses waits, tries one, and is not charged for what does not come."""

from __future__ import annotations

from cluster import actions as act
from cluster.reasons import Verdict
from cluster.refused import Refused
from tests.policies.builders import NOW, a_cluster
from tests.policies.fitting import SERVICE, cluster, codes, of, place
from tests.policies.test_by_priority import commit
from tests.policies.test_island_gang import cluster as training
from tests.policies.test_island_gang import train

SAID = 'pods "chat-1" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1'


def refused(until: float, attempts: int = 3) -> Refused:
    return Refused(
        sentence=SAID,
        code=403,
        attempts=attempts,
        since_seconds=NOW - 60.0,
        wait_seconds=80.0,
        until_seconds=until,
    )


def test_a_refused_service_waits_and_says_why_with_numbers() -> None:
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3))
    plan, _ = place(made.changing("services", SERVICE, refused=refused(NOW + 30.0)))
    assert of(plan, act.CreateReplica) == []
    (reason,) = [r for r in plan.reasons if r.code == "ReplicaRefused"]
    assert reason.choice == SAID
    assert (reason.need.value, reason.have.value, reason.limit.value) == (3.0, 3.0, 80.0)  # type: ignore[union-attr]


def test_when_its_try_is_due_one_pod_is_made_and_not_three() -> None:
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3))
    plan, _ = place(made.changing("services", SERVICE, refused=refused(NOW)))
    assert len(of(plan, act.CreateReplica)) == 1
    assert [(r.code, r.choice) for r in plan.reasons if r.verdict is Verdict.CHOSEN] == [
        ("ReplicaTried", "L4x1-bf16")
    ]
    plan, _ = place(made.changing("services", SERVICE, refused=None))
    assert len(of(plan, act.CreateReplica)) == 3
    assert {r.code for r in plan.reasons if r.verdict is Verdict.CHOSEN} == {"ReplicaPlaced"}


def test_what_is_refused_leaves_its_devices_to_others_and_stays_wanted() -> None:
    """One node of four GPUs: the first service may have three and is refused them, the second gets what it wants."""

    def counts(standing: Refused | None) -> tuple[int, int]:
        made = a_cluster().with_pool("l4-od", "L4").with_nodes(1, "l4-od", gpus=4)
        made.with_service("shop/a", "L4", refused=standing).with_service("shop/b", "L4")
        for name in ("shop/a", "shop/b"):
            made.with_capacity(name, 0.0, units=3, final=False)
            key = f"Capacity/{name}"
            made.changing("targets", key, owner="user")
        final, _, _ = commit(made.build())
        first, second = (sum(p.units for p in final[n].mix.parts) for n in ("shop/a", "shop/b"))
        return first, second

    assert counts(None) == (3, 1)
    assert counts(refused(NOW + 30.0)) == (3, 3)


def test_a_refused_job_keeps_no_nodes_and_starts_when_its_try_is_due() -> None:
    made = training().with_job()
    plan = train(made.changing("jobs", "lab/job", refused=refused(NOW + 30.0)))
    assert of(plan, act.StartGang) == of(plan, act.Reserve) == []
    assert "GangRefused" in codes(plan)
    plan = train(made.changing("jobs", "lab/job", refused=refused(NOW)))
    assert len(of(plan, act.StartGang)) == 1
