"""Our custom resources as nouns: what users want. Pure functions; a fault is a list of sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Market, Pool
from cluster.power import PowerDomain
from cluster.serving import Mode, Model, Objective, Policies, Service, Variant
from cluster.training import CheckpointSpec, Job, JobPhase, TrainingShape
from controller.observe import sharing
from controller.observe.revisions import Standing, name_of, template_of
from controller.observe.ruled import broken_rules
from controller.resources.acceleratorclass import AcceleratorClass as AcceleratorClassObject
from controller.resources.acceleratorclass import PricePool
from controller.resources.base import ObjectMeta, PolicyChoice
from controller.resources.modelservice import ModelService, ServedModel
from controller.resources.powerdomain import PowerDomain as PowerDomainObject
from controller.resources.trainingjob import TrainingJob
from placement.models import model_spec, training_shape


class Intent(NamedTuple):
    """A noun, or why there is none: each fault is a sentence saying what, where and what to do."""

    noun: Any
    faults: tuple[str, ...] = ()


def ref_of(kind: str, metadata: ObjectMeta) -> Ref:
    """The ref of an object: its generation counts changes of its intent."""
    return Ref(kind, metadata.key, metadata.uid, metadata.generation)


def accelerator(obj: AcceleratorClassObject) -> tuple[AcceleratorClass, list[Pool]]:
    """A product and its price pools."""
    spec = obj.spec
    noun = AcceleratorClass(
        ref=Ref(
            "AcceleratorClass",
            spec.display_name or obj.metadata.name,
            obj.metadata.uid,
            obj.metadata.generation,
        ),
        resource_name=spec.resource_name,
        memory_bytes=spec.memory_bytes,
        bandwidth_bytes_per_second=spec.bandwidth_bytes_per_second,
        flops=dict(spec.flops),
        min_watts=spec.min_watts,
        max_watts=spec.max_watts,
        tdp_watts=spec.tdp_watts,
        safe_watts=spec.safe_watts,
        link_bytes_per_second=spec.link_bytes_per_second,
        fabric=spec.fabric,
        clocks_mhz=tuple(spec.clocks_mhz),
        aliases=(obj.metadata.name, *spec.aliases),
        sharing=spec.sharing,
        device_class=spec.dra.device_class if spec.sharing == "dra" else "",
        device_driver=spec.dra.driver if spec.sharing == "dra" else "",
        share_capacities=tuple(spec.dra.share_capacities) if spec.sharing == "dra" else (),
        rdma_resource=spec.rdma.resource_name if spec.rdma else "",
        rdma_count=spec.rdma.count if spec.rdma else 0,
        networks=tuple(spec.rdma.networks) if spec.rdma else (),
        ipc_lock=spec.rdma.ipc_lock if spec.rdma else False,
        shared_memory_bytes=spec.shared_memory_bytes,
    )
    return noun, [_pool(pool, noun.name) for pool in spec.pools]


def _pool(pool: PricePool, accelerator: str) -> Pool:
    return Pool(
        name=pool.name,
        accelerator=accelerator,
        region=pool.region,
        zone=pool.zone,
        market=Market(pool.market),
        dollars_per_gpu_hour=pool.dollars_per_gpu_hour,
        priced_at=pool.priced_at,
        available_gpus=pool.available_gpus,
        node_size=pool.node_size,
        reclaim_per_hour=pool.reclaim_per_hour,
    )


def service(standing: Standing, classes: dict[str, AcceleratorClass]) -> Intent:
    """A service to serve, of the revision it stands at; faults for a model without a shape, unknown products,
    impossible bounds.
    """
    obj = standing.acting
    spec = obj.spec
    where = f"ModelService {obj.metadata.key}"
    model, faults = _model(spec.model, where)
    names = {alias: name for name, c in classes.items() for alias in (name, *c.aliases)}
    faults += _unknown_products(spec.accelerators, names, f"{where}: spec.accelerators")
    faults += _unknown_products([v.accelerator for v in spec.variants], names, f"{where}: spec.variants")
    faults += broken_rules("ModelService", obj)
    faults += sharing.of_service(spec, names, classes, where)
    if model is None or faults:
        return Intent(None, tuple(faults))
    load = spec.expected_load
    noun = Service(
        ref=ref_of("ModelService", obj.metadata),
        model=model,
        image=spec.image,
        revision=standing.revision,
        rollout=standing.rollout,
        objectives=tuple(_objective(o) for o in spec.objectives)
        or (Objective(ttft_seconds=2.0, tpot_seconds=0.1),),
        variants=_variants(obj, names, classes, model),
        floor_units=min(
            spec.max_replicas, max(spec.min_replicas, spec.replicas if spec.mode == "Auto" else 0)
        ),
        ceiling_units=spec.max_replicas,
        replicas=spec.replicas,
        expected_requests_per_second=load.requests_per_second if load else 0.0,
        expected_input_tokens=load.input_tokens if load else 0.0,
        expected_output_tokens=load.output_tokens if load else 0.0,
        violation_budget=spec.violation_budget,
        mode=Mode(spec.mode),
        hold_requests=spec.hold.max_requests,
        hold_seconds=spec.hold.deadline_seconds,
        keep_alive_seconds=spec.keep_alive_seconds,
        drain_seconds=spec.drain_seconds,
        policies=_policies(spec.policies),
    )
    return Intent(noun if obj.metadata.deletion_timestamp is None else _unwanted(noun))


def _unwanted(noun: Service) -> Service:
    """The service of an object that is going: nothing of it is wanted, whatever still holds the object."""
    return msgspec.structs.replace(
        noun, floor_units=0, ceiling_units=0, replicas=0, expected_requests_per_second=0.0, mode=Mode.OFF
    )


def _objective(given: Any) -> Objective:
    return Objective(
        request_class=given.request_class,
        ttft_seconds=given.ttft_seconds,
        tpot_seconds=given.tpot_seconds,
        percentile=given.percentile,
        priority=given.priority,
        unserved_dollars=given.unserved_dollars_per_hour,
        spot_share=given.max_spot_share,
        survives_loss=given.survive_loss,
    )


def _unknown_products(wanted: list[str], names: dict[str, str], where: str) -> list[str]:
    known = ", ".join(sorted(set(names.values()))) or "none"
    return [
        f"{where} names {name!r}, which no AcceleratorClass describes; known are {known}. Apply an AcceleratorClass for it or use a known one."
        for name in wanted
        if name not in names
    ]


def _model(given: ServedModel, where: str) -> tuple[Model | None, list[str]]:
    shape = {
        name: getattr(given, name)
        for name in (
            "parameters",
            "layers",
            "hidden_size",
            "kv_heads",
            "head_dim",
            "weight_bytes",
            "kv_bytes_per_token",
            "max_context_tokens",
        )
        if getattr(given, name) is not None
    }
    try:
        return model_spec(given.name, shape), []
    except KeyError as error:
        return None, [f"{where}: spec.model: {error.args[0]}"]


def _variants(
    obj: ModelService, names: dict[str, str], classes: dict[str, AcceleratorClass], model: Model
) -> tuple[Variant, ...]:
    spec = obj.spec
    if spec.variants:
        return tuple(
            Variant(
                accelerator=names[v.accelerator],
                gpus=v.gpus,
                milli=v.gpu_milli,
                tensor=v.gpus,
                precision=v.precision,
            )
            for v in spec.variants
        )
    allowed = sorted({names[name] for name in spec.accelerators}) or sorted(classes)
    degrees = {name: smallest_degree(model, classes[name]) for name in allowed}
    most = {name: min(DEGREES[-1], sharing.most_devices(classes[name])) for name in allowed}
    fitting = {name: gpus for name, gpus in degrees.items() if 0 < gpus <= most[name]}
    # Where none fits, the most devices of each: the planner then tells what each of them lacks.
    return tuple(Variant(accelerator=name, gpus=n, tensor=n) for name, n in (fitting or most).items())


DEGREES = (1, 2, 4, 8)
"""GPUs of a replica that are tried where the user names no variant."""


def smallest_degree(model: Model, accelerator: AcceleratorClass) -> int:
    """Fewest GPUs (of `DEGREES`) that hold the weights and leave a third of them for KV; 0 if none."""
    for gpus in DEGREES:
        if model.weight_bytes * 1.33 <= 0.9 * accelerator.memory_bytes * gpus:
            return gpus
    return 0


def _policies(given: Any) -> Policies:
    chosen: dict[str, PolicyChoice] = {
        loop: choice
        for loop in ("select", "scale", "warm", "dispatch", "migration")
        if (choice := getattr(given, loop)) is not None
    }
    return Policies(
        name={loop: choice.name for loop, choice in chosen.items()},
        config={loop: dict(choice.config) for loop, choice in chosen.items() if choice.config},
    )


_JOB_PHASES = {"Succeeded": JobPhase.DONE, "Failed": JobPhase.FAILED, "Suspended": JobPhase.SUSPENDED}


def job(obj: TrainingJob, classes: dict[str, AcceleratorClass]) -> Intent:
    """A job to train; its attempt number comes from the status, which is written before any pod."""
    spec = obj.spec
    where = f"TrainingJob {obj.metadata.key}"
    names = {alias: name for name, c in classes.items() for alias in (name, *c.aliases)}
    faults = _unknown_products(spec.accelerators, names, f"{where}: spec.accelerators")
    most = spec.nodes.max if spec.nodes.max is not None else spec.nodes.min
    faults += broken_rules("TrainingJob", obj)
    shape, missing = _shape(obj, where)
    faults += missing + sharing.of_job(spec.accelerators, names, classes, where)
    if shape is None or faults:
        return Intent(None, tuple(faults))
    noun = Job(
        ref=ref_of("TrainingJob", obj.metadata),
        shape=shape,
        steps=spec.steps,
        global_batch=spec.global_batch,
        micro_batch=spec.micro_batch,
        min_nodes=spec.nodes.min,
        max_nodes=most,
        gpus_per_node=spec.gpus_per_node,
        accelerators=tuple(dict.fromkeys(names[n] for n in spec.accelerators)) or sharing.whole(classes),
        queue=spec.queue,
        priority=spec.priority,
        dollars_per_gpu_hour=spec.value_per_gpu_hour,
        checkpoint=_checkpoint(obj),
        restart_limit=spec.restart_limit,
        suspended=spec.suspend or obj.metadata.deletion_timestamp is not None,
        phase=_JOB_PHASES.get(obj.status.phase, JobPhase.WAITING),
        attempt=obj.status.attempt,
        failures=obj.status.restarts,
        failed_attempt=obj.status.failed_attempt,
        revision=name_of(template_of(spec)),
    )
    return Intent(noun)


def _shape(obj: TrainingJob, where: str) -> tuple[TrainingShape | None, list[str]]:
    model = obj.spec.model
    names = ("layers", "hidden_size", "sequence_length", "vocabulary")
    given = {name: value for name in names if (value := getattr(model, name)) is not None}
    try:
        return training_shape(model.name, given), []
    except KeyError as error:
        return None, [f"{where}: spec.model: {error.args[0]}"]


def _checkpoint(obj: TrainingJob) -> CheckpointSpec:
    interval = obj.spec.checkpoint.interval_seconds
    return CheckpointSpec(
        interval_seconds=interval,
        min_interval_seconds=interval,
        max_interval_seconds=interval,
        write_seconds=obj.spec.checkpoint.seconds_to_write,
    )


def domain(obj: PowerDomainObject, members: tuple[str, ...]) -> PowerDomain:
    """A breaker with its members resolved to node names."""
    policy = obj.spec.policy
    return PowerDomain(
        ref=ref_of("PowerDomain", obj.metadata),
        parent=obj.spec.parent,
        rating_watts=obj.spec.rating_watts,
        margin=obj.spec.margin_fraction,
        serving_watts=obj.spec.serving_watts,
        members=members,
        policy=policy.name if policy else "static_clamp",
        config=dict(policy.config) if policy else {},
    )
