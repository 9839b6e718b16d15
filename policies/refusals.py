"""Why variants are out, and why a service has none left: shared by selection and commitment."""

from __future__ import annotations

from cluster.reasons import Reason, Remedy, Verdict
from cluster.serving import Service
from cluster.snapshot import Snapshot
from policies.draft import quantity
from policies.frames import LEAST_PRICE, Excluded, Frame

OBJECTIVE_CODES = ("TpotFloor", "TtftFloor", "MemoryTooSmall")
"""Codes by which the objective or the product itself, not the inventory, excludes a variant."""

FINAL_CODES = ("ObjectiveImpossible", "ModelTooLarge")
"""Codes of a whole service that no inventory and no price would change."""


def excluded(service: Service, refusal: Excluded, total_gpus: int) -> Reason:
    """One variant cannot be used."""
    lacks = refusal.code == "NoInventory"
    return Reason(
        code=refusal.code, subject=service.ref, verdict=Verdict.REJECTED, choice=refusal.variant,
        need=quantity("need", refusal.need, refusal.unit), have=quantity("have", refusal.have, refusal.unit),
        limit=quantity("in_all", total_gpus, "GPU") if lacks else None,
    )  # fmt: skip


def hopeless(view: Snapshot, service: Service, frame: Frame, total_gpus: int) -> Reason | None:
    """Why nothing can serve the service, or None while something could."""
    if frame.columns:
        return None
    impossible = [e for e in frame.excluded if e.code in OBJECTIVE_CODES]
    if impossible and not frame.profiles:
        return _objective_impossible(service, impossible)
    return no_inventory(view, service, frame, total_gpus)


def no_inventory(view: Snapshot, service: Service, frame: Frame, total_gpus: int) -> Reason:
    """The cluster has no GPU that could serve the service, or none with a price."""
    there = {node.accelerator for node in view.nodes.values()}
    unpriced = {e.variant.partition("|")[0] for e in frame.excluded if e.code == "PriceMissing"}
    for variant in service.variants:
        if variant.key in unpriced and variant.accelerator in there:
            return _nothing_priced(service, frame, variant.accelerator)
    return _nothing_there(service, frame, total_gpus)


def _nothing_priced(service: Service, frame: Frame, accelerator: str) -> Reason:
    """The cluster has GPUs that could serve the service, and no pool of them has a price."""
    return Reason(
        code="NothingPriced", subject=service.ref, verdict=Verdict.BLOCKED, choice=accelerator,
        need=quantity("need", LEAST_PRICE, "$/h"), have=quantity("have", 0, "$/h"),
        against=tuple(e.alternative() for e in frame.excluded),
    )  # fmt: skip


def _nothing_there(service: Service, frame: Frame, total_gpus: int) -> Reason:
    """The cluster has no GPU of a product that could serve the service."""
    need = min((variant.gpu_share for variant in service.variants), default=1)
    return Reason(
        code="NoInventory", subject=service.ref, verdict=Verdict.BLOCKED, choice=_products(service),
        need=quantity("gpus", need, "GPU"), have=quantity("have", 0, "GPU"),
        limit=quantity("in_all", total_gpus, "GPU"), against=tuple(e.alternative() for e in frame.excluded),
        remedy=Remedy("AddCapacity", _products(service), (quantity("need", need, "GPU"),)),
    )  # fmt: skip


def _products(service: Service) -> str:
    return " or ".join(dict.fromkeys(variant.accelerator for variant in service.variants)) or "any product"


def _objective_impossible(service: Service, impossible: list[Excluded]) -> Reason:
    """The variant that comes nearest: by time where time excludes it, else by memory: then no promise is to blame."""

    def excess(refusal: Excluded) -> tuple[bool, float]:
        memory = refusal.code == "MemoryTooSmall"
        asked, floor = (refusal.have, refusal.need) if memory else (refusal.need, refusal.have)
        return memory, floor / max(asked, 1e-12)

    nearest = min(impossible, key=lambda e: (*excess(e), e.variant))
    memory = nearest.code == "MemoryTooSmall"
    needs, asked = (nearest.need, nearest.have) if memory else (nearest.have, nearest.need)
    remedy = None
    if not memory:
        remedy = Remedy("RelaxObjective", nearest.variant, (quantity("need", needs, nearest.unit),))
    return Reason(
        code="ModelTooLarge" if memory else "ObjectiveImpossible", subject=service.ref, verdict=Verdict.BLOCKED, choice=nearest.variant,
        need=quantity("needs", needs, nearest.unit), have=quantity("tried", len(impossible), "variants"),
        limit=quantity("asked", asked, nearest.unit), against=tuple(e.alternative() for e in impossible),
        remedy=remedy,
    )  # fmt: skip
