"""Route tables out of the model: which replicas take requests, where they are, with what weight, and the plan by size."""

from __future__ import annotations

from cluster.serving import Replica, ReplicaPhase
from cluster.size_plan import SizePlan, StepFigures
from cluster.snapshot import Snapshot
from controller.actor.pods import ENGINE_PORT
from controller.observe.world import World
from controller.resources.core import Pod
from policies.dispatch.choices import dispatch_of
from policies.shapes import DEFAULT_EDGES
from wire import gateway_pb2 as pb

ENDPOINT = "plimsoll.dev/endpoint"
"""Set by whoever runs the pod when its engine listens elsewhere than on the pod's own address."""

_STATES = {ReplicaPhase.READY: "ready", ReplicaPhase.DRAINING: "draining", ReplicaPhase.ASLEEP: "asleep"}


def endpoint_of(pod: Pod | None) -> str:
    """host:port of a pod's engine, empty while it has no address."""
    if pod is None:
        return ""
    given = pod.metadata.annotations.get(ENDPOINT, "")
    return given or (f"{pod.status.pod_ip}:{ENGINE_PORT}" if pod.status.pod_ip else "")


class RouteBook:
    """The table the gateways were given last. Weights and plans are those that stand (`Routes`, as `place` set them)."""

    def __init__(self) -> None:
        """Start without a table."""
        self._version = 0
        self._last: bytes = b""

    def table(self, world: World, snapshot: Snapshot, epoch: int, now_seconds: float) -> pb.RouteTable | None:
        """The table, with a new version, if it says something new; else None."""
        table = pb.RouteTable(epoch=epoch)
        by_service: dict[str, list[Replica]] = {}
        for _, replica in sorted(snapshot.replicas.items()):
            if replica.phase in _STATES:
                by_service.setdefault(replica.service, []).append(replica)
        for name in sorted(snapshot.services):
            self._service(table.services.add(), name, by_service.get(name, []), world, snapshot)
        body = table.SerializeToString(deterministic=True)
        if body == self._last:
            return None
        self._last = body
        self._version += 1
        table.version = self._version
        table.decided_seconds = now_seconds
        return table

    def _service(
        self, route: pb.ServiceRoute, name: str, replicas: list[Replica], world: World, snapshot: Snapshot
    ) -> None:
        service = snapshot.services[name]
        route.service = name
        route.uid = service.ref.uid
        route.hold_limit = service.hold_requests
        route.hold_deadline_seconds = service.hold_seconds
        route.dispatch_policy = dispatch_of(service)
        route.input_edges.extend(DEFAULT_EDGES[0])
        route.output_edges.extend(DEFAULT_EDGES[1])
        for objective in service.objectives:
            route.classes.add(
                name=objective.request_class,
                ttft_seconds=objective.ttft_seconds,
                tpot_seconds=objective.tpot_seconds,
                percentile=objective.percentile,
                priority=objective.priority,
            )
        routes = snapshot.routes(name)
        if routes is not None and routes.plan is not None:
            put_plan(route.size_plan, routes.plan)
        weights = routes.weights if routes is not None else {}
        # Weights of nobody who is left (a new leader's, from before) say nothing of those who are.
        weights = weights if any(replica.key in weights for replica in replicas) else {}
        for replica in replicas:
            pod = world.objects["Pod"].get(replica.key)
            address = endpoint_of(pod)
            if pod is None or not address:
                continue
            route.instances.add(
                name=replica.key,
                node=pod.spec.node_name,
                endpoint=address,
                weight=weights.get(replica.key, 0.0 if weights else 1.0),
                variant=replica.variant.key,
                state=_STATES[replica.phase],
                uid=replica.ref.uid,
                pool=replica.pool,
            )


def put_plan(message: pb.SizePlan, plan: SizePlan) -> None:
    """Write a plan by size; columns that a class has no share of say none."""
    message.input_edges.extend(plan.input_edges)
    message.output_edges.extend(plan.output_edges)
    message.upper_edges = not plan.blend
    for column in plan.columns:
        steps = {name: getattr(column.steps, name) for name in StepFigures.__struct_fields__}
        message.columns.add(
            name=column.name, tpot_seconds=column.tpot_seconds, refill_seconds=column.refill_seconds, **steps
        )
    for each in plan.classes:
        told = message.classes.add(
            name=each.request_class, ttft_seconds=each.ttft_seconds, tpot_seconds=each.tpot_seconds
        )
        for shares, able in zip(each.shares, each.able, strict=True):
            told.columns.add(shares=shares if any(shares) else (), able=able)
