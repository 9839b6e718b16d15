"""Whatever happens, in whatever order: every request ends once, has one owner at most, and no cap is passed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.hold import HoldConfig
from gateway.messages import Arrival, End, EventKind, InstanceRoute, Outbox, RouteState, RouteTable, Window
from tests.gateway.worlds import World, arrival, core, instance, service

NODES = ("n1", "n2", "n3")
SERVICES = ("shop/chat", "shop/code")
HOLD_LIMIT = 6
BYTES_LIMIT = 4_000


class GatewayMachine(RuleBasedStateMachine):
    """Deaths, cuts, refusals, route changes and clients that leave, between windows of any length."""

    @initialize()
    def begin(self) -> None:
        self.world = World(core(owners_limit=4, hold=HoldConfig(first_burst=1, bytes_limit=BYTES_LIMIT)))
        self.tag = 0
        self.version = 0
        self.epoch = 1
        self.admitted: set[int] = set()
        self.ended: Counter[int] = Counter()
        self.highest: dict[int, int] = {}

    @rule(
        rows=st.lists(
            st.tuples(
                st.sampled_from(SERVICES),
                st.sampled_from(NODES),
                st.sampled_from([0.0, 0.5, 1.0]),
                st.sampled_from(list(RouteState)),
                st.sampled_from(["u1", "u2"]),
            ),
            max_size=5,
        ),
        kept=st.sets(st.sampled_from(SERVICES)),
        leap=st.sampled_from([-1, 0, 0, 0, 1]),
    )
    def routes(self, rows: list[tuple[str, str, float, RouteState, str]], kept: set[str], leap: int) -> None:
        self.version += 1
        named: dict[str, list[InstanceRoute]] = {name: [] for name in kept}
        for k, (name, node, weight, state, uid) in enumerate(rows):
            if name in named:
                named[name].append(instance(f"{name[5:]}{k}", node, weight, state, uid))
        table = RouteTable(
            self.epoch + leap,
            self.version,
            tuple(
                service(*named[name], name=name, hold_limit=HOLD_LIMIT, hold_deadline=8.0)
                for name in sorted(named)
            ),
        )
        first = self.world.core.counts.routes_accepted == 0
        taken = self.world.core.apply_routes(table, self.world.now)
        assert taken is (leap >= 0 or first)
        self.epoch = max(self.epoch, table.epoch) if not first else table.epoch

    @rule(node=st.sampled_from(NODES))
    def node_up(self, node: str) -> None:
        self.world.core.node_up(node, self.world.now)

    @rule(node=st.sampled_from(NODES))
    def node_down(self, node: str) -> None:
        self.world.core.node_down(node, self.world.now)

    @rule(
        seconds=st.sampled_from([0.0, 0.01, 0.5, 1.0, 5.0]),
        wanted=st.lists(
            st.tuples(
                st.floats(-0.5, 1.0), st.sampled_from([*SERVICES, "shop/none"]), st.sampled_from([1, 100, 99_999]),
                st.sampled_from([0.0, 0.7]), st.integers(0, 1),
            ),
            max_size=6,
        ),
    )  # fmt: skip
    def window(self, seconds: float, wanted: list[tuple[float, str, int, float, int]]) -> None:
        arrivals: list[Arrival] = []
        for part, name, prompt, patience, client in wanted:
            self.tag += 1
            at = self.world.now + part * seconds
            deadline = max(0.001, at + patience) if patience else 0.0
            arrivals.append(arrival(self.tag, at, prompt, 1, name, deadline_seconds=deadline, client=client))
            self.admitted.add(self.tag)
        self.take(self.world.step(*arrivals, seconds=seconds))

    @rule(
        node=st.sampled_from(NODES),
        kinds=st.lists(st.sampled_from(["serve", "first", "refuse", "fail", "stale", "keep"]), max_size=8),
        hide=st.booleans(),
        behind=st.integers(0, 2),
    )
    def frame(self, node: str, kinds: list[str], hide: bool, behind: int) -> None:
        """The node answers for what it holds, perhaps twice, perhaps late, perhaps without listing an instance."""
        world = self.world
        routed = {row.name: row.node for state in world.core.services.values() for row in state.rows.ordered}
        mine = [s for s in world.held.values() if routed.get(s.instance) == node]
        events = []
        for kind, submission in zip(kinds, mine, strict=False):
            if kind == "serve":
                events.extend(world.serve([submission]))
            elif kind == "first":
                events.append(world.event(submission, EventKind.FIRST_TOKEN, tokens=1))
            elif kind in {"refuse", "fail"}:
                world.held.pop((submission.request_id, submission.epoch))
                events.append(
                    world.event(submission, EventKind.REFUSED if kind == "refuse" else EventKind.FAILED)
                )
            elif kind == "stale":
                events.extend(world.serve([submission]) * 2)
        gone = [name for name, where in routed.items() if where == node][:1] if hide else []
        world.fold(world.frame(node, events, absent=gone, tick=max(0, world.tick - behind)))

    @rule(client=st.integers(0, 1))
    def client_leaves(self, client: int) -> None:
        self.world.core.cancel_client(client, self.world.now)

    def take(self, out: Outbox) -> None:
        up = {row.name: row for state in self.world.core.services.values() for row in state.rows.ordered}
        for frame in out.frames.values():
            for submission in frame.submissions:
                row = up[submission.instance]
                assert (row.node, row.connected) == (frame.node, True)
                assert row.route.state is RouteState.READY
                assert row.route.weight > 0
                assert submission.epoch == self.highest.get(submission.request_id, 0) + 1
                self.highest[submission.request_id] = submission.epoch
        for ending in out.endings:
            self.ended[ending.tag] += 1
            assert ending.ended_seconds >= ending.arrived_seconds or ending.end is End.FINISHED
            assert ending.held_seconds >= 0
            assert bool(ending.code) is (ending.end is not End.FINISHED)

    @invariant()
    def the_books_balance(self) -> None:
        gateway = self.world.core
        counts = gateway.counts
        ended = counts.finished + counts.rejected + counts.failed + counts.cancelled
        assert counts.arrived == len(self.admitted) == ended + gateway.open_requests
        assert max(self.ended.values(), default=0) <= 1
        assert gateway.refused_transitions.keys() <= {("prefill", "prefill"), ("decoding", "prefill")}

    @invariant()
    def nobody_has_two_owners_and_caps_hold(self) -> None:
        owned: Counter[int] = Counter()
        for state in self.world.core.services.values():
            owned.update(ticket.request_id for ticket in state.held)
            assert state.held.first_comers <= HOLD_LIMIT
            assert state.held.bytes == sum(state.held.size(ticket) for ticket in state.held)
            assert sum(state.held.size(t) for t in state.held if not t.epoch) <= BYTES_LIMIT
            table = state.rows.table
            assert state.rows.ready_count == int(table.ready.sum())
            for row in state.rows.ordered:
                owned.update(list(row.open))
                assert row.pending >= 0
                assert row.pending == table.pending[row.index] == sum(n for _, n, _ in row.unreported)
                assert row.connected or not row.open
        assert max(owned.values(), default=0) <= 1
        assert sum(owned.values()) <= self.world.core.open_requests

    def teardown(self) -> None:
        """Time alone ends what nobody serves; engines end the rest. Then nothing is open."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(3):
            for node in NODES:
                world.core.node_down(node, world.now)
            self.take(world.step(seconds=20.0))
        assert world.core.open_requests == 0
        assert set(self.ended) == self.admitted


TestGatewayMachine = GatewayMachine.TestCase

SPLITS = st.lists(st.floats(0.0, 10.0), max_size=8)


@given(
    times=st.lists(st.floats(0.0, 9.99), max_size=30),
    splits=SPLITS,
    ready_at=st.sampled_from([0.0, 3.0, 11.0]),
    hold_deadline=st.sampled_from([0.5, 2.0, 50.0]),
)
def test_how_time_is_split_into_windows_changes_nothing_without_news(
    times: list[float], splits: list[float], ready_at: float, hold_deadline: float
) -> None:
    """Same arrivals, same news at the same time: same submissions and endings however the windows are cut."""

    def run(cuts: list[float]) -> list[object]:
        gateway = core(hold=HoldConfig(first_burst=1, pace_seconds=0.3))
        told: list[object] = []
        gateway.apply_routes(RouteTable(1, 1, (service(hold_deadline=hold_deadline),)), 0.0)
        edges = sorted({0.0, 10.0, *cuts, *([ready_at] if ready_at <= 10.0 else [])})
        for tick, (start, stop) in enumerate(pairwise(edges), 1):
            if start == ready_at:
                rows = (instance("a", "n1", 0.6), instance("b", "n2", 0.4))
                gateway.apply_routes(RouteTable(1, 2, (service(*rows, hold_deadline=hold_deadline),)), start)
                gateway.node_up("n1", start)
                gateway.node_up("n2", start)
            inside = [arrival(k, at) for k, at in enumerate(times) if start <= at < stop]
            out = gateway.step(Window(tick, start, stop), inside)
            told.extend(
                (s.submitted_seconds, s.arrived_seconds, s.instance)
                for s in sorted(
                    (s for frame in out.frames.values() for s in frame.submissions),
                    key=lambda s: (s.submitted_seconds, s.request_id),
                )
            )
            told.extend((e.tag, e.code, e.ended_seconds) for e in out.endings)
        return sorted(told, key=repr)

    assert run([]) == run(splits)


@given(st.permutations(range(6)), st.permutations(range(4)))
def test_the_order_in_which_arrivals_and_frames_come_in_changes_nothing(
    order: list[int], folds: list[int]
) -> None:
    def run(order: list[int], folds: list[int]) -> list[object]:
        world = World()
        world.route(service(*(instance(f"i{k}", f"n{k}") for k in range(4))))
        world.step(*(arrival(k, (k // 2) / 10) for k in order))
        by_node = {f"n{k}": [s for s in world.sent if s.instance == f"shop/i{k}"] for k in range(4)}
        reports = []
        for k in range(4):
            failed = [world.event(s, EventKind.FAILED) for s in by_node[f"n{k}"]]
            reports.append(world.frame(f"n{k}", failed))
        world.fold(*(reports[k] for k in folds))
        world.step(arrival(9, 1.5))
        return [(s.request_id, s.epoch, s.instance, s.arrived_seconds) for s in world.sent]

    assert run(order, folds) == run(list(range(6)), list(range(4)))
