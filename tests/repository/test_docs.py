"""Documents: links lead somewhere, commands in them exist with the options they are given, every record is listed."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from console.main import app
from tests.repository.tree import ROOT, files

PAGES = [name for name in files() if name.suffix == ".md"]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^ {4,}(?:\$ )?(?:\.venv/bin/)?plimsoll (.+?)(?: &)?(?:\s+#.*)?$", re.MULTILINE)

# Written by `make bench`, or taken from a run: they may be missing in a tree where nobody ran it yet.
MADE_BY_RUNS = {Path("docs/benchmarks.md"), Path("docs/images/demo.png")}


def links(page: Path) -> list[Path]:
    """Relative targets of a page's links, as paths from the root."""
    text = (ROOT / page).read_text()
    return [(ROOT / page.parent / target).resolve().relative_to(ROOT) for target in LINK.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere(page: Path):
    assert not [str(to) for to in links(page) if not (ROOT / to).exists() and to not in MADE_BY_RUNS]


def commands() -> list[tuple[str, str]]:
    return [(str(page), line) for page in PAGES for line in COMMAND.findall((ROOT / page).read_text())]


def options_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words of a command line name, and the words after it."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        found = command.commands.get(words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_that_a_page_shows_exists_with_its_options(page: str, line: str):
    command, rest = options_of(shlex.split(line))
    assert not hasattr(command, "commands"), f"{page}: plimsoll {line}: there is no such command."
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
    assert set(used) <= {*known, "--help"}, f"{page}: plimsoll {line}"


def test_pages_show_commands_at_all():
    assert len(commands()) > 15


def test_the_index_lists_every_page():
    listed = set(links(Path("docs/README.md")))
    pages = {page for page in PAGES if page.parts[0] == "docs" and page.name != "README.md"}
    assert pages - listed == set()
