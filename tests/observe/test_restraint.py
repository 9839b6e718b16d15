"""What holds an object, what keeps a pod, and how moves are counted: by what survives, whichever is seen first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.restraint import Hold, Moves
from controller.config import RestraintSettings
from controller.observe import labels
from controller.observe.keeping import KeepingBook, budget_of, kept_by
from controller.observe.restraint import Restraint
from controller.resources import core
from controller.resources.base import ObjectMeta
from controller.resources.guards import PodDisruptionBudget
from controller.resources.modelservice import ModelService, Moved
from controller.telling.clock_text import rfc3339
from tests.nouns.cases import service as noun
from tests.observe.objects import Play, engine_pod, node, service

NOW = 1_700_000_000.0
CHAT = "shop/chat"


def namespace(**metadata: Any) -> core.Namespace:
    return msgspec.convert({"metadata": {"name": "shop", **metadata}}, core.Namespace)


def told(*moves: tuple[float, int], per_hour: int | None = 5) -> ModelService:
    made = service()
    status = msgspec.structs.replace(
        made.status, moves=[Moved(at=rfc3339(at), count=count) for at, count in moves]
    )
    disruption = msgspec.structs.replace(made.spec.disruption, moves_per_hour=per_hour)
    spec = msgspec.structs.replace(made.spec, disruption=disruption)
    return msgspec.structs.replace(made, spec=spec, status=status)


def moved(name: str, at: float | str) -> core.Pod:
    pod = engine_pod(name)
    notes = {**pod.metadata.annotations, labels.MOVED_AT: repr(at) if isinstance(at, float) else at}
    meta = msgspec.structs.replace(pod.metadata, annotations=notes, uid=f"uid-{name}")
    return msgspec.structs.replace(pod, metadata=meta)


PAUSED, MANAGED = {labels.PAUSED: "true"}, {labels.MANAGED: "true"}


@pytest.mark.parametrize(
    ("settings", "own", "mode", "around", "hold"),
    [
        pytest.param({}, {}, "Auto", {}, Hold.NONE, id="nothing holds it"),
        pytest.param({}, PAUSED, "Auto", {}, Hold.PAUSED, id="paused itself"),
        pytest.param({}, {labels.PAUSED: "yes"}, "Auto", {}, Hold.NONE, id="another value is no pause"),
        pytest.param({}, {}, "Auto", {"annotations": PAUSED}, Hold.PAUSED, id="its namespace is paused"),
        pytest.param({}, {}, "Recommend", {}, Hold.RECOMMEND, id="recommend by its spec"),
        pytest.param({"mode": "Recommend"}, {}, "Auto", {}, Hold.RECOMMEND, id="recommend by the configuration"),
        pytest.param({"mode": "Recommend"}, {}, "Off", {}, Hold.RECOMMEND, id="mode Off does not override that"),
        pytest.param({"mode": "Recommend"}, PAUSED, "Auto", {}, Hold.PAUSED, id="a pause outdoes advice"),
        pytest.param({"namespaces": "labelled"}, {}, "Auto", {}, Hold.NOT_MANAGED, id="not opted in"),
        pytest.param({"namespaces": "labelled"}, {}, "Auto", None, Hold.NOT_MANAGED, id="a namespace nobody saw"),
        pytest.param({"namespaces": "labelled"}, {}, "Auto", {"labels": MANAGED}, Hold.NONE, id="opted in"),
        pytest.param({"namespaces": "labelled"}, PAUSED, "Auto", {}, Hold.NOT_MANAGED, id="opting in comes first"),
    ],
)  # fmt: skip
def test_what_holds_an_object(
    settings: dict[str, Any], own: dict[str, str], mode: str, around: dict[str, Any] | None, hold: Hold
) -> None:
    book = Restraint(RestraintSettings(**settings))
    meta = ObjectMeta(name="chat", namespace="shop", annotations=own)
    assert book.hold(meta, mode, None if around is None else namespace(**around)) is hold


def budget(book: Restraint, now: float = NOW, per_hour: int | None = 5) -> Moves | None:
    return book.service(noun(CHAT), told(per_hour=per_hour), None, now).moves


def test_a_mark_on_a_pod_is_one_move_however_often_it_is_seen() -> None:
    book = Restraint()
    assert book.saw_pod(moved("chat-1", NOW)) == CHAT
    assert book.saw_pod(moved("chat-1", NOW)) == ""
    assert book.saw_pod(moved("chat-2", NOW + 61.0)) == CHAT
    assert budget(book) == Moves(allowed=5, made=2, next_seconds=NOW // 60 * 60 + 3_660.0)


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "", "1e400", "-1e30"])
def test_an_edited_mark_is_nobodys_move(text: str) -> None:
    book = Restraint()
    book.saw_pod(moved("chat-1", text))
    counted = budget(book)
    assert counted is not None
    assert counted.made == 0


def test_status_and_marks_of_one_minute_are_the_same_moves() -> None:
    book = Restraint()
    book.saw_service(CHAT, told((NOW, 2)))
    book.saw_pod(moved("chat-1", NOW))
    counted = budget(book)
    assert counted is not None
    assert counted.made == 2
    book.saw_pod(moved("chat-2", NOW))
    book.saw_pod(moved("chat-3", NOW))
    counted = budget(book)
    assert counted is not None
    assert counted.made == 3, "the leader died before it told the third"


def test_a_move_counts_for_an_hour_and_the_view_is_told_when_it_is_over() -> None:
    book = Restraint(RestraintSettings(moves_per_hour=3))
    book.saw_pod(moved("chat-1", NOW))
    view = {CHAT: book.service(noun(CHAT), told(), None, NOW)}
    assert book.due(view, NOW + 60.0) == []
    assert book.cluster(NOW) == Moves(allowed=3, made=1, next_seconds=NOW // 60 * 60 + 3_660.0)
    assert book.due(view, NOW + 3_661.0) == [CHAT]
    assert budget(book, NOW + 3_661.0) == Moves(allowed=5)
    assert book.cluster(NOW + 3_661.0) == Moves(allowed=3)


def test_without_a_budget_there_is_none() -> None:
    book = Restraint()
    book.saw_pod(moved("chat-1", NOW))
    assert budget(book, per_hour=None) is None
    assert book.cluster(NOW) is None
    assert book.made(CHAT, NOW) == {int(NOW) // 60: 1}


def test_the_cluster_counts_every_service_and_forgets_one_that_is_gone() -> None:
    book = Restraint(RestraintSettings(moves_per_hour=9))
    book.saw_pod(moved("chat-1", NOW))
    book.saw_service("shop/draft", told((NOW, 4)))
    whole = book.cluster(NOW)
    assert whole is not None
    assert whole.made == 5
    book.saw_service("shop/draft", None)
    whole = book.cluster(NOW)
    assert whole is not None
    assert whole.made == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), max_size=20))
def test_a_successor_never_counts_fewer_moves_than_were_told(steps: list[tuple[bool, int, int]]) -> None:
    """Pods come and go, statuses are written or not: who starts anew from both counts as many as were told."""
    book, pods, written = Restraint(), [], told()
    for number, (tells, minute, _) in enumerate(steps):
        pod = moved(f"chat-{number}", NOW + 60.0 * minute)
        pods.append(pod)
        book.saw_pod(pod)
        if tells:
            written = told(*((60.0 * m, n) for m, n in book.made(CHAT, NOW + 600.0).items()))
    successor = Restraint()
    successor.saw_service(CHAT, written)
    for pod in pods[len(pods) // 2 :]:
        successor.saw_pod(pod)
    mine, theirs = book.made(CHAT, NOW + 600.0), successor.made(CHAT, NOW + 600.0)
    assert sum(m.count for m in written.status.moves) <= sum(theirs.values()) <= sum(mine.values())


# ------------------------------------------------------------------------------------------- what keeps a pod


@pytest.mark.parametrize(
    ("notes", "by"),
    [
        pytest.param({}, "", id="nobody"),
        pytest.param({labels.DO_NOT_DISRUPT: "true"}, labels.DO_NOT_DISRUPT, id="Karpenter's"),
        pytest.param({labels.SAFE_TO_EVICT: "false"}, labels.SAFE_TO_EVICT, id="the autoscaler's"),
        pytest.param(
            {labels.DO_NOT_DISRUPT: "false", labels.SAFE_TO_EVICT: "true"}, "", id="the other way round"
        ),
        pytest.param({labels.DO_NOT_DISRUPT: "true", labels.KEPT: "drain"}, "", id="ours, while it drains"),
    ],
)
def test_who_keeps_a_pod(notes: dict[str, str], by: str) -> None:
    pod = engine_pod()
    meta = msgspec.structs.replace(pod.metadata, annotations={**pod.metadata.annotations, **notes})
    assert kept_by(msgspec.structs.replace(pod, metadata=meta)) == by


def guard(selector: dict[str, Any] | None, **status: Any) -> PodDisruptionBudget:
    spec = {} if selector is None else {"selector": selector}
    meta = {"name": "keep", "namespace": "shop", "uid": "u", "generation": 2}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status}, PodDisruptionBudget)


@pytest.mark.parametrize(
    ("selector", "over"),
    [
        pytest.param({"matchLabels": {labels.SERVICE: "chat"}}, True, id="by the service's label"),
        pytest.param({"matchLabels": {labels.SERVICE: "draft"}}, False, id="another's"),
        pytest.param({}, True, id="an empty selector means all"),
        pytest.param(None, False, id="no selector means none"),
        pytest.param({"matchExpressions": [{"key": labels.SERVICE, "operator": "Exists"}]}, True, id="exists"),
        pytest.param({"matchExpressions": [{"key": labels.SERVICE, "operator": "NotIn", "values": ["chat"]}]}, False, id="not in"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, True, id="does not exist"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "Sideways"}]}, False, id="an unknown operator"),
    ],
)  # fmt: skip
def test_which_pods_a_budget_is_over(selector: dict[str, Any] | None, over: bool) -> None:
    book = KeepingBook()
    assert book.saw("shop/keep", guard(selector))
    assert book.keeping(engine_pod()).budgets == (("shop/keep",) if over else ())
    assert not book.saw("shop/keep", guard(selector, disruptionsAllowed=1)), "a count moves nobody"
    assert book.saw("shop/keep", None)
    assert book.keeping(engine_pod()).budgets == ()


def test_a_budget_that_was_not_counted_for_its_newest_spec_allows_nothing() -> None:
    late = guard({}, observedGeneration=1, disruptionsAllowed=3, currentHealthy=4, desiredHealthy=1)
    assert (budget_of(late).allowed, budget_of(late).healthy, budget_of(late).desired) == (0, 4, 1)
    counted = guard({}, observedGeneration=2, disruptionsAllowed=3)
    assert budget_of(counted).allowed == 3


@pytest.mark.parametrize(
    ("notes", "condition", "told"),
    [
        pytest.param({}, ("DisruptionTarget", "True"), True, id="a preemption"),
        pytest.param({}, ("Ready", "True"), False, id="a plain deletion"),
        pytest.param({}, ("DisruptionTarget", "False"), False, id="a preemption that was called off"),
        pytest.param({labels.DRAIN_UNTIL: "1.0"}, ("DisruptionTarget", "True"), False, id="our own eviction"),
    ],
)
def test_who_else_ends_a_pod_is_kept_until_it_is_told(
    notes: dict[str, str], condition: tuple[str, str], told: bool
) -> None:
    pod = engine_pod()
    meta = msgspec.structs.replace(
        pod.metadata,
        annotations={**pod.metadata.annotations, **notes},
        deletion_timestamp="2026-01-01T00:00:00Z",
        deletion_grace_period_seconds=20,
    )
    says = core.CoreCondition(
        type=condition[0], status=condition[1], reason="PreemptionByScheduler", message="making way"
    )
    status = msgspec.structs.replace(pod.status, conditions=[says])
    book = Restraint()
    book.saw_end(pod.metadata.key, msgspec.structs.replace(pod, metadata=meta, status=status))
    book.saw_end(pod.metadata.key, None)
    assert list(book.disrupted) == ([pod.metadata.key] if told else [])
    if told:
        found = book.disrupted[pod.metadata.key]
        assert found == ("ModelService", CHAT, "PreemptionByScheduler", "making way", 20)


def test_room_that_the_scheduler_clears_for_a_more_important_pod_is_taken_already() -> None:
    play = Play(node("n1", gpus=4))
    urgent = {
        "metadata": {"name": "urgent", "namespace": "lab", "uid": "u"},
        "spec": {
            "priority": 100_000,
            "containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "3"}}}],
        },
        "status": {"phase": "Pending"},
    }
    play.tell(msgspec.convert(urgent, core.Pod))
    assert "lab/urgent" not in play.live("claims"), "nobody knows yet where it goes"
    urgent["status"] = {"phase": "Pending", "nominatedNodeName": "n1"}
    play.tell(msgspec.convert(urgent, core.Pod))
    claim = play.live("claims")["lab/urgent"]
    assert (claim.slot.node, claim.slot.gpus, claim.phase, claim.foreign) == ("n1", 3, "pending", True)
