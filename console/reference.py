"""The reference page of the command line, written from the commands themselves.

`python -m console.reference > docs/reference/cli.md`
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from console.main import app

_HEAD = """# Command line

One command, `plimsoll`, and a subcommand for each role and each question. `plimsoll COMMAND --help` says the same in
the terminal.

- Results go to standard output, everything else to standard error. `-o json` makes the result one JSON value on one
  line; a process prints one line `{"ready": ROLE, …}` with its addresses when it does its work.
- Exit codes: 0 done; 1 done, and the answer is no (a plan that differs, a request that was not served, nothing decided
  yet); 2 it could not be done, with one sentence on standard error that says what was wrong and what to do.
- Addresses and folders come from options or the environment: `PLIMSOLL_PKI`, `PLIMSOLL_OPERATOR`, `PLIMSOLL_GATEWAY`,
  `PLIMSOLL_LEDGER`, `PLIMSOLL_LOG_LEVEL`.
- `get`, `apply`, `delete` and `scale` are for operators that keep their objects themselves; on Kubernetes, use
  `kubectl`.

This page is made by `python -m console.reference > docs/reference/cli.md`.
"""

_WORDS = ((Path, "PATH"), (int, "INTEGER"), (float, "NUMBER"))


def reference_page() -> str:
    """The whole page, Markdown."""
    root: Any = typer.main.get_command(app)
    found = list(_commands(root, "plimsoll"))
    index = "\n".join(
        f"- [`{name}`](#{name.replace(' ', '-')}): {_first(command)}" for name, command in found
    )
    return f"{_HEAD}\n{index}\n" + "".join(_section(name, command) for name, command in found)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        below = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, below)
        else:
            yield below, command


def _first(command: Any) -> str:
    """The sentence that says what it is for."""
    return " ".join(_help(command).split("\n\n")[0].split())


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(_metavar(each) for each in arguments)])
    parts = [f"\n## {name}\n", _help(command), f"\n```\n{usage}\n```\n"]
    if arguments:
        parts.append("| argument | meaning |\n|---|---|")
        parts += [f"| `{_metavar(each)}` | {_text(each.help)} |" for each in arguments]
        parts.append("")
    if options:
        parts.append("| option | default | meaning |\n|---|---|---|")
        kinds = _kinds(command)
        parts += [
            f"| {_names(each, kinds[each.name])} | {_default(each)} | {_about(each)} |" for each in options
        ]
        parts.append("")
    return "\n".join(parts)


def _kinds(command: Any) -> dict[str, str]:
    """What each option takes, by the name of its parameter: the function's own types, whatever parses them."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    return {
        name: next((word for kind, word in _WORDS if kind in _within(hint)), "TEXT")
        for name, hint in hints.items()
    }


def _within(hint: Any) -> set[Any]:
    """A type, or the types inside `X | None` and `list[X]`."""
    inside = typing.get_args(hint)
    return {hint}.union(*(_within(each) for each in inside)) if inside else {hint}


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(option: Any, kind: str) -> str:
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    return f"{names} {_cell(option.metavar or kind)}"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, "", ()) or option.is_flag:
        return "–"
    return f"`{option.default}`"


def _about(option: Any) -> str:
    text = _text(option.help)
    return f"{text} Also `{option.envvar}`." if option.envvar else text


def _text(text: str | None) -> str:
    return _cell(" ".join((text or "").split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
