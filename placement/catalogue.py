"""GPU products known out of the box: facts and dated prices, read from shipped data, never written in code.

An `AcceleratorClass` of the cluster overrides what is here; the catalogue fills what such an object does not say
(the link between the GPUs of a node) and gives defaults for a first run. Reading the file happens once, at start-up,
never inside a decision.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable
from datetime import date
from importlib import resources

import msgspec

from cluster.base import Noun, Ref
from cluster.hardware import AcceleratorClass, Pool
from placement.profiles.steptime import GpuFigures

GIB = 2**30


class CatalogueError(ValueError):
    """A row of a catalogue cannot be used, or a product is not in it; the sentence names row and remedy."""


class Product(Noun, kw_only=True, frozen=True):
    """One GPU product: bytes, bytes per second, FLOP/s, watts, and an on-demand price with its date.

    ``dollars_per_gpu_hour`` None means that no price is known. ``link_bytes_per_second`` is one direction. ``facts_at`` is the day
    on which its figures were taken from ``source``.
    """

    name: str
    aliases: tuple[str, ...] = ()
    memory_bytes: int
    bandwidth_bytes_per_second: int
    flops_16bit_per_second: float
    flops_8bit_per_second: float = 0.0
    flops_4bit_per_second: float = 0.0
    min_watts: int
    tdp_watts: int
    fabric: str = "pcie"
    link_bytes_per_second: float = 32e9
    dollars_per_gpu_hour: float | None = None
    priced_at: str = ""
    facts_at: str = ""
    source: str = ""

    def figures(self) -> GpuFigures:
        """What the step-time formula needs of it."""
        return GpuFigures(
            name=self.name,
            memory_bytes=self.memory_bytes,
            bandwidth_bytes_per_second=float(self.bandwidth_bytes_per_second),
            flops_16bit_per_second=self.flops_16bit_per_second,
            flops_8bit_per_second=self.flops_8bit_per_second,
            link_bytes_per_second=self.link_bytes_per_second,
            fabric=self.fabric,
            flops_4bit_per_second=self.flops_4bit_per_second,
        )

    def accelerator_class(self) -> AcceleratorClass:
        """The product as the cluster's noun, capped at its TDP and falling back to its lowest cap."""
        flops = {"fp16": self.flops_16bit_per_second, "bf16": self.flops_16bit_per_second}
        if self.flops_8bit_per_second > 0.0:
            flops["fp8"] = self.flops_8bit_per_second
        if self.flops_4bit_per_second > 0.0:
            flops["fp4"] = self.flops_4bit_per_second
        return AcceleratorClass(
            ref=Ref("AcceleratorClass", self.name),
            memory_bytes=self.memory_bytes,
            bandwidth_bytes_per_second=self.bandwidth_bytes_per_second,
            flops=flops,
            min_watts=self.min_watts,
            max_watts=self.tdp_watts,
            tdp_watts=self.tdp_watts,
            safe_watts=self.min_watts,
            link_bytes_per_second=int(self.link_bytes_per_second),
            fabric=self.fabric,
            aliases=self.aliases,
        )

    def pool(self, available_gpus: int = 0) -> Pool:
        """An on-demand pool at the shipped price. CatalogueError when there is none."""
        if self.dollars_per_gpu_hour is None:
            raise CatalogueError(f"no price is known for {self.name}; name one in its AcceleratorClass")
        return Pool(
            name=f"{self.name.lower()}-od",
            accelerator=self.name,
            dollars_per_gpu_hour=self.dollars_per_gpu_hour,
            priced_at=self.priced_at,
            available_gpus=available_gpus,
        )


class Catalogue(msgspec.Struct, frozen=True):
    """Products by name; `find` also knows their aliases, whatever the case and the hyphens."""

    products: dict[str, Product]

    def find(self, name: str) -> Product:
        """The product of a name or alias. CatalogueError with the nearest known names for an unknown one."""
        wanted = plain_name(name)
        known: dict[str, Product] = {}
        for product in self.products.values():
            for each in (product.name, *product.aliases):
                known[plain_name(each)] = product
        if wanted in known:
            return known[wanted]
        near = difflib.get_close_matches(wanted[:100], known, n=3)
        hint = ", ".join(sorted({known[each].name for each in near})) or ", ".join(sorted(self.products))
        raise CatalogueError(
            f"GPU product {name[:100]!r} is unknown; did you mean {hint}? Otherwise describe it in an AcceleratorClass"
        )


def plain_name(name: str) -> str:
    """A product's name without what tools write differently: case, and hyphen, underscore or blank between its parts."""
    return "-".join(name.casefold().replace("_", " ").replace("-", " ").split())


def load() -> Catalogue:
    """The shipped catalogue."""
    text = resources.files("placement").joinpath("data", "accelerators.csv").read_text(encoding="utf-8")
    return parse(text.splitlines(), "accelerators.csv")


def parse(lines: Iterable[str], source: str) -> Catalogue:
    """A catalogue from CSV lines ('#' starts a comment). CatalogueError names the row and what to do."""
    products: dict[str, Product] = {}
    for where, row in rows_of(lines, source):
        product = _product(row, where)
        if product.name in products:
            raise CatalogueError(f"{where} names {product.name} a second time; keep one row of it")
        products[product.name] = product
    return Catalogue(products)


def rows_of(lines: Iterable[str], source: str) -> Iterable[tuple[str, dict[str, str]]]:
    """Rows of shipped facts with where each is; '#' starts a comment."""
    rows = csv.DictReader(line for line in lines if line.strip() and not line.startswith("#"))
    for at, row in enumerate(rows, start=1):
        yield f"{source} row {at}", row


def _product(row: dict[str, str], where: str) -> Product:
    name = (row.get("name") or "").strip()
    if not name:
        raise CatalogueError(f"{where} has no name; give the product's name in the first column")
    return Product(
        name=name,
        aliases=tuple(each.strip() for each in (row.get("aliases") or "").split("|") if each.strip()),
        memory_bytes=int(number(row, "memory_gib", where, name) * GIB),
        bandwidth_bytes_per_second=int(number(row, "bandwidth_gb_per_s", where, name) * 1e9),
        flops_16bit_per_second=number(row, "tflops_16bit", where, name) * 1e12,
        flops_8bit_per_second=number(row, "tflops_8bit", where, name, least=0.0) * 1e12,
        flops_4bit_per_second=number(row, "tflops_4bit", where, name, least=0.0) * 1e12
        if row.get("tflops_4bit")
        else 0.0,
        min_watts=int(number(row, "min_watts", where, name)),
        tdp_watts=int(number(row, "tdp_watts", where, name)),
        fabric=(row.get("fabric") or "pcie").strip(),
        link_bytes_per_second=number(row, "link_gb_per_s", where, name) * 1e9,
        dollars_per_gpu_hour=_price(row, where, name),
        priced_at=(row.get("priced_at") or "").strip(),
        facts_at=dated(row, "facts_at", where, name),
        source=told(row, "source", where, name),
    )


def told(row: dict[str, str], column: str, where: str, name: str) -> str:
    """A text that must be there."""
    text = (row.get(column) or "").strip()
    if not text:
        raise CatalogueError(
            f"{where} ({name}) has no {column}; a fact without one cannot be checked, fill it"
        )
    return text


def dated(row: dict[str, str], column: str, where: str, name: str) -> str:
    """A day that must be there."""
    text = told(row, column, where, name)
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise CatalogueError(f"{where} ({name}): {column} is {text!r}; write a day as YYYY-MM-DD") from error


def _price(row: dict[str, str], where: str, name: str) -> float | None:
    if not (row.get("dollars_per_gpu_hour") or "").strip():
        return None
    price = number(row, "dollars_per_gpu_hour", where, name)
    if not (row.get("priced_at") or "").strip():
        raise CatalogueError(f"{where} ({name}) has a price without a date; fill priced_at (YYYY-MM-DD)")
    dated(row, "priced_at", where, name)
    return price


def number(row: dict[str, str], column: str, where: str, name: str, least: float | None = None) -> float:
    """A finite number above 0, or at least ``least``. CatalogueError otherwise."""
    text = (row.get(column) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (value > 0.0 if least is None else value >= least):
        return value
    wanted = "a positive number" if least is None else f"a number of at least {least:g}"
    raise CatalogueError(f"{where} ({name}): {column} is {text!r}; write {wanted}")
