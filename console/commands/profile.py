"""`plimsoll profile`: measured profiles of others, read with their axes, checked, and written as the operator takes them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from placement.catalogue import load
from placement.profiles.formats import Given, Imported, parse
from placement.profiles.user import ProfileError, ProfileFile

LABEL = "plimsoll.dev/profiles"


def run_import(file: Path, given: Given, out: Path | None, config_map: str) -> int:
    """Read, check and write one file. Exit code 0; 2 with a sentence for each fault, and nothing written."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        found = parse(file.read_text(encoding="utf-8"), file.name, given, load())
    except ProfileError as error:
        for sentence in error.sentences:
            errors.print(f"[red]{escape(sentence)}.[/red]")
        return 2
    except UnicodeDecodeError as error:
        errors.print(
            f"[red]{escape(str(file))}: byte {error.start} is not UTF-8; save the file as UTF-8.[/red]"
        )
        return 2
    except OSError as error:
        errors.print(
            f"[red]{escape(str(file))}: {error.strerror or error}. Give the path of a profile file.[/red]"
        )
        return 2
    for sentence in found.told:
        errors.print(f"[yellow]{escape(sentence)}.[/yellow]")
    text = _text(found, config_map, file)
    if out is None:
        print(text)
    else:
        try:
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            errors.print(
                f"[red]{escape(str(out))}: {error.strerror or error}. Give a path that can be written.[/red]"
            )
            return 2
    errors.print(_table(found))
    return 0


def _text(found: Imported, config_map: str, file: Path) -> str:
    content = msgspec.json.format(msgspec.json.encode(ProfileFile(found.profiles)), indent=1).decode()
    if not config_map:
        return content
    name, _, namespace = config_map.partition("@")
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace or "plimsoll-system", "labels": {LABEL: "true"}},
        "data": {f"{file.stem}.json": json.dumps(json.loads(content))},
    }
    return yaml.safe_dump(manifest, sort_keys=False).rstrip()


def _table(found: Imported) -> Table:
    table = Table(title=f"{len(found.profiles)} profiles ({found.format})", title_justify="left")
    for column in ("model", "gpu", "precision", "promise", "sizes", "best req/s", "band"):
        table.add_column(column)
    for each in found.profiles:
        promise = f"TPOT {1e3 * each.tpot_seconds:g} ms" if each.tpot_seconds else "any"
        rates = [rate for row in each.rates for rate in row if rate]
        sizes = f"{len(rates)} of {len(each.input_edges)} x {len(each.output_edges)}"
        gpu = f"{each.gpus} x {each.accelerator}"
        table.add_row(
            each.model,
            gpu,
            each.precision or "any",
            promise,
            sizes,
            f"{max(rates):.3g}",
            f"± {100 * each.error:.0f} %",
        )
    return table
