"""What parts of GPUs are good for: one engine each. Slices of a board have no way to each other.

A share of a device (`gpuMilli`) is had by claim alone: a MIG slice or a turn is a device of its own class already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.hardware import AcceleratorClass
from controller.observe.devices import SLICED


def most_devices(accelerator: AcceleratorClass) -> int:
    """How many devices of a class one engine may span."""
    return 1 if accelerator.sharing in SLICED else 1_024


def whole(classes: Mapping[str, AcceleratorClass]) -> tuple[str, ...]:
    """Classes whose devices can be in a gang, where some cannot; empty (any) where all can."""
    found = tuple(name for name in sorted(classes) if classes[name].sharing not in SLICED)
    return found if len(found) < len(classes) else ()


def of_service(
    spec: Any, names: Mapping[str, str], classes: Mapping[str, AcceleratorClass], where: str
) -> list[str]:
    """Variants that would span several parts of GPUs, or that want a share which nobody gives, as sentences."""
    shares = [each for each in spec.variants if each.gpu_milli < 1_000 and each.accelerator in names]
    return [
        f"{where}: spec.variants asks for {each.gpu_milli} thousandths of {each.accelerator}, {why}"
        for each in shares
        if (why := _undivided(classes[names[each.accelerator]]))
    ] + [
        f"{where}: spec.variants asks for {each.gpus} devices of {each.accelerator}, whose AcceleratorClass has sharing:"
        f" {classes[names[each.accelerator]].sharing}. A part of a GPU cannot work with another one: ask for gpus: 1."
        for each in spec.variants
        if each.accelerator in names and each.gpus > most_devices(classes[names[each.accelerator]])
    ]


def _undivided(accelerator: AcceleratorClass) -> str:
    """Why nobody gets a share of a device of this class, and what to ask for instead; empty where shares are given."""
    whose = f"whose AcceleratorClass has sharing: {accelerator.sharing}"
    if accelerator.sharing == "none":
        return (
            f"{whose}: its GPUs are given out whole. Leave gpuMilli out, or let a driver share them and set sharing: dra"
            " with dra.shareCapacities."
        )
    if accelerator.sharing in SLICED:
        return (
            f"{whose}: a device of it is a part of a GPU already, with the part's memory and speed. Leave gpuMilli out, or"
            " name the class of a smaller part."
        )
    if not accelerator.share_capacities:
        return (
            f"{whose} and no dra.shareCapacities: its GPUs are claimed whole. Leave gpuMilli out, or name the capacities that"
            " its driver lets claims have a part of, such as memory."
        )
    return ""


def of_job(
    wanted: Sequence[str], names: Mapping[str, str], classes: Mapping[str, AcceleratorClass], where: str
) -> list[str]:
    """Products of a job that are parts of GPUs, as sentences."""
    return [
        f"{where}: spec.accelerators names {name}, whose AcceleratorClass has sharing: {classes[names[name]].sharing}."
        " Ranks need whole GPUs that reach each other: name a class of whole GPUs."
        for name in wanted
        if name in names and classes[names[name]].sharing in SLICED
    ]
