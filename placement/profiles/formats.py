"""Reads the profile files of others: Mélange's, AIBrix's, grids by GPU, lists by model and system, and our own.

Axes, which is where mistakes happen: Mélange's `tputs` has a row for each *input* size, AIBrix's a row for each *output* size (its
`indexes` are [outputs, inputs]). Ours has a row for each input size. A shape that only fits the other way round is refused
with that said, never turned silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from cluster.base import Noun
from placement.catalogue import Catalogue, CatalogueError
from placement.profiles.user import ProfileError, ProfileFile, UserProfile, checked

MELANGE_EDGES = (25, 100, 250, 500, 1000, 2000)
"""Sizes of Mélange's profiles, inputs and outputs alike; its files do not carry them."""


class Given(Noun, kw_only=True, frozen=True):
    """What the user says beside the file, for what it does not say itself."""

    model: str = ""
    accelerator: str = ""
    gpus: int = 0
    precision: str = ""
    engine: str = ""
    tpot_seconds: float = 0.0
    ttft_seconds: float = 0.0
    input_edges: tuple[int, ...] = ()
    output_edges: tuple[int, ...] = ()
    error: float = 0.1


class Imported(NamedTuple):
    """Profiles of a file, the name of its format, and sentences about what is odd in it."""

    profiles: tuple[UserProfile, ...]
    format: str
    told: tuple[str, ...]


class _Found(NamedTuple):
    """A table as a file has it, rows by input already."""

    where: str
    gpu: str
    rates: Any
    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    more: dict[str, Any]


def parse(text: str, source: str, given: Given, catalogue: Catalogue) -> Imported:
    """Profiles of a file's text. Raises ProfileError with a sentence for each fault found."""
    try:
        content = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ProfileError(
            (f"{source}: not JSON ({error}); import the file as its tool wrote it",)
        ) from error
    if not isinstance(content, dict):
        raise ProfileError(
            (f"{source}: the file holds a {type(content).__name__}; a profile file is a JSON object",)
        )
    name = _format(content, source)
    if name == "plimsoll":
        return _own(content, source, catalogue)
    faults: list[str] = []
    profiles: list[UserProfile] = []
    told: list[str] = []
    try:
        for found in _READERS[name](content, source, given, faults):
            try:
                profile = _profile(found, given, catalogue, told)
                told += [*checked(profile), *_unpromised(profile)]
                profiles.append(profile)
            except ProfileError as error:
                faults += error.sentences
    except _OTHER_KIND as error:
        faults.append(
            f"{source}: a value is of another kind than the {name} format has there ({error}); import the file as its tool wrote it"
        )
    if not faults and not any(rate for each in profiles for row in each.rates for rate in row):
        faults = [
            f"{source}: nothing in it serves any size; measure under a looser promise or with more GPUs",
            *told,
        ]
    if faults:
        raise ProfileError(tuple(faults))
    return Imported(tuple(profiles), name, tuple(told))


_OTHER_KIND = (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, OSError)
"""What reading a table raises where a list is short, or text, a number or a list stands where another should."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no name may be given twice: the second would hide the first."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:100]!r} is given twice in one object; keep one")
        found[key] = value
    return found


def _sizes(values: list[Any]) -> tuple[int, ...]:
    """Token counts. ValueError for one that is no whole number."""
    for each in values:
        if isinstance(each, bool) or not isinstance(each, int | float) or each != int(each):
            raise ValueError(f"size {each!r} is no whole number of tokens")
    return tuple(int(each) for each in values)


def _unpromised(profile: UserProfile) -> list[str]:
    if profile.tpot_seconds:
        return []
    return [
        f"{profile.source}: no TPOT is named, so {profile.key} is taken for every promise; say --tpot-ms if it has one"
    ]


def _format(content: dict[str, Any], source: str) -> str:
    if "gpu_info" in content:
        return "melange"
    if "indexes" in content and "tputs" in content:
        return "aibrix"
    if "gpus" in content and "input_edges" in content:
        return "grid"
    if "profiles" in content:
        return "list" if "input_edges" in content else "plimsoll"
    raise ProfileError(
        (
            (
                f"{source}: none of the known formats. Mélange's has `gpu_info`, AIBrix's `tputs` and `indexes`, a grid `gpus` with "
                "`input_edges` and `output_edges`, ours `profiles`"
            ),
        )
    )


def _own(content: dict[str, Any], source: str, catalogue: Catalogue) -> Imported:
    try:
        profiles = msgspec.convert(content, ProfileFile).profiles
    except msgspec.ValidationError as error:
        raise ProfileError((f"{source}: {error}; `plimsoll profile import` writes this format",)) from error
    faults: list[str] = []
    told: list[str] = []
    kept = []
    for number, profile in enumerate(profiles):
        named = msgspec.structs.replace(profile, source=profile.source or f"{source} profiles[{number}]")
        try:
            known = msgspec.structs.replace(
                named, accelerator=_product(named.accelerator, named.source, catalogue, told)
            )
            told += checked(known)
            kept.append(known)
        except ProfileError as error:
            faults += error.sentences
    if faults:
        raise ProfileError(tuple(faults))
    return Imported(tuple(kept), "plimsoll", tuple(told))


def _melange(content: dict[str, Any], source: str, given: Given, faults: list[str]) -> Iterable[_Found]:
    for gpu, info in _mapping(content["gpu_info"], f"{source} gpu_info", faults):
        where = f"{source} gpu_info.{gpu}"
        faults.extend(_price_faults(info.get("cost"), f"{where}.cost"))
        rates = info.get("tputs")
        rows, columns = _shape(rates)
        inputs = given.input_edges or MELANGE_EDGES
        outputs = given.output_edges or MELANGE_EDGES
        if (rows, columns) != (len(inputs), len(outputs)) and not given.input_edges:
            faults.append(
                f"{where}.tputs is {rows} x {columns} and the file does not say at which sizes; name them with --input-edges (rows, "
                f"{rows} of them) and --output-edges (columns, {columns} of them)"
            )
            continue
        yield _Found(where, gpu, rates, inputs, outputs, {})


def _aibrix(content: dict[str, Any], source: str, given: Given, faults: list[str]) -> Iterable[_Found]:
    where = f"{source} tputs"
    faults.extend(_price_faults(content.get("cost"), f"{source} cost"))
    indexes, rates = content["indexes"], content["tputs"]
    if (
        not isinstance(indexes, list)
        or len(indexes) != 2
        or not all(isinstance(each, list) for each in indexes)
    ):
        faults.append(f"{source} indexes: AIBrix lists output sizes, then input sizes; give both lists")
        return
    outputs, inputs = (_sizes(each) for each in indexes)
    rows, columns = _shape(rates)
    if (rows, columns) != (len(outputs), len(inputs)):
        turned = (rows, columns) == (len(inputs), len(outputs))
        hint = "; it looks transposed: AIBrix has a row for each output size" if turned else ""
        faults.append(
            f"{where} is {rows} x {columns}, indexes ask for {len(outputs)} outputs x {len(inputs)} inputs{hint}"
        )
        return
    by_input = [[rates[o][i] for o in range(len(outputs))] for i in range(len(inputs))]
    slos = content.get("slos") or {}
    more = {"tpot_seconds": slos.get("tpot") or slos.get("tpat"), "ttft_seconds": slos.get("ttft")}
    if isinstance(content.get("created"), int | float):
        more["measured_at"] = datetime.fromtimestamp(content["created"], UTC).date().isoformat()
    gpu = given.accelerator or str(content.get("gpu", ""))
    yield _Found(where, gpu, by_input, inputs, outputs, more)


def _grid(content: dict[str, Any], source: str, given: Given, faults: list[str]) -> Iterable[_Found]:
    del given
    inputs, outputs = _edges(content, source, faults)
    for gpu, info in _mapping(content["gpus"], f"{source} gpus", faults):
        where = f"{source} gpus.{gpu}"
        faults.extend(_price_faults(info.get("cost_usd_h"), f"{where}.cost_usd_h"))
        yield _Found(
            f"{where}.tputs",
            gpu,
            info.get("tputs"),
            inputs,
            outputs,
            {"tpot_seconds": content.get("tpot_slo_s")},
        )


def _list(content: dict[str, Any], source: str, given: Given, faults: list[str]) -> Iterable[_Found]:
    del given
    inputs, outputs = _edges(content, source, faults)
    for number, info in enumerate(content["profiles"]):
        where = f"{source} profiles[{number}]"
        if not isinstance(info, dict):
            faults.append(f"{where}: not an object; give model, system, tp and tputs")
            continue
        faults.extend(_price_faults(info.get("cost_usd_h"), f"{where}.cost_usd_h"))
        more = {
            "model": info.get("model"),
            "gpus": info.get("tp"),
            "precision": info.get("precision"),
            "tpot_seconds": _milli(info.get("tpot_slo_ms")),
            "ttft_seconds": _milli(info.get("ttft_slo_ms")),
        }
        yield _Found(f"{where}.tputs", str(info.get("system", "")), info.get("tputs"), inputs, outputs, more)


_READERS = {"melange": _melange, "aibrix": _aibrix, "grid": _grid, "list": _list}


def _milli(value: object) -> float | None:
    return value / 1e3 if isinstance(value, int | float) else None


def _edges(
    content: dict[str, Any], source: str, faults: list[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    try:
        return _sizes(content["input_edges"]), _sizes(content["output_edges"])
    except (KeyError, TypeError, ValueError, OverflowError):
        faults.append(f"{source}: input_edges and output_edges must both list token counts")
        return (), ()


def _mapping(value: object, where: str, faults: list[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict) or not value:
        faults.append(f"{where}: no GPU is listed; give an object with a name for each")
        return
    for name, info in value.items():
        if isinstance(info, dict):
            yield str(name), info
        else:
            faults.append(f"{where}.{name}: not an object; give its cost and tputs")


def _shape(rates: object) -> tuple[int, int]:
    if not isinstance(rates, list) or not rates or not isinstance(rates[0], list):
        return 0, 0
    return len(rates), len(rates[0])


def _price_faults(price: object, where: str) -> list[str]:
    """A price that is there must be one; what is planned with comes from the AcceleratorClass in any case."""
    if price is None:
        return []
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0.0 < price < math.inf:
        return [
            f"{where} is {price!r}; write dollars per hour above 0, or leave the line out: the AcceleratorClass has the price"
        ]
    return []


def _product(name: str, where: str, catalogue: Catalogue, told: list[str] | None = None) -> str:
    """The product's name in the catalogue. One that the user named (then ``told`` is given) may be described by an
    AcceleratorClass alone, which is told; else it is a fault.
    """
    try:
        return catalogue.find(name).name
    except CatalogueError as error:
        if told is None:
            raise ProfileError(
                (
                    f"{where}: {error} and say --gpu with its name there; so too when the file calls it otherwise",
                )
            ) from error
        told.append(
            f"{where}: {error}: the profile is used where one has this name, or has it among its aliases"
        )
        return name.strip()


def _profile(found: _Found, given: Given, catalogue: Catalogue, told: list[str]) -> UserProfile:
    """A table with what the user says beside it. Raises ProfileError for cells that are no numbers, or an unknown GPU."""
    rows, columns = _shape(found.rates)
    wanted = (len(found.input_edges), len(found.output_edges))
    if rows != wanted[0] or columns != wanted[1]:
        hint = "; it looks transposed" if (columns, rows) == wanted else ""
        raise ProfileError(
            (
                f"{found.where} is {rows} x {columns}, its sizes ask for {wanted[0]} inputs x {wanted[1]} outputs{hint}",
            )
        )
    faults = [
        f"{found.where}[{i}][{j}] (input {found.input_edges[i]}, output {found.output_edges[min(j, wanted[1] - 1)]}) is {cell!r}; "
        "measure that size again, write 0 where it cannot be served, null where nobody measured"
        for i, row in enumerate(found.rates)
        for j, cell in enumerate(row)
        if cell is not None
        and (isinstance(cell, bool) or not isinstance(cell, int | float) or not 0.0 <= cell < math.inf)
    ]
    if faults:
        raise ProfileError(tuple(faults))
    said = {
        field: getattr(given, field)
        for field in ("model", "gpus", "precision", "engine", "tpot_seconds", "ttft_seconds")
    }
    in_file = {field: value for field, value in found.more.items() if value}
    merged = {**in_file, **{field: value for field, value in said.items() if value}}
    if not merged.get("model"):
        raise ProfileError((f"{found.where}: the file names no model; say --model",))
    return UserProfile(
        accelerator=_product(
            found.gpu, found.where, catalogue, told if found.gpu == given.accelerator else None
        ),
        input_edges=found.input_edges,
        output_edges=found.output_edges,
        rates=tuple(tuple(None if cell is None else float(cell) for cell in row) for row in found.rates),
        error=given.error,
        source=found.where,
        **{**merged, "gpus": int(merged.get("gpus") or 1)},
    )
