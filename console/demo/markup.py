"""HTML built by calls: every plain string is escaped, so no name, sentence or trace can become markup."""

from __future__ import annotations

import html

from console.demo.words import clean

LONGEST_TEXT = 2_000
_VOID = frozenset({"meta", "br", "hr", "input"})


class Markup(str):
    """Text that is markup already. Only `el`, `joined` and the plots make it."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Any value as text of a page: one line, bounded, printable, escaped."""
    return Markup(html.escape(clean(str(text), LONGEST_TEXT), quote=True))


def el(tag: str, *children: object, **attributes: object) -> Markup:
    """An element. Children: markup, values (escaped), None (left out) or lists of them.

    An attribute's trailing `_` is dropped and other `_` become `-`; True gives a bare attribute, None or False none.
    """
    pairs = "".join(
        _attribute(name, value)
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{pairs}/>")
    return Markup(f"<{tag}{pairs}>{joined(*children)}</{tag}>")


def joined(*children: object) -> Markup:
    """Children one after the other, as `el` takes them."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, list | tuple):
            parts.append(joined(*child))
        else:
            parts.append(child if isinstance(child, Markup) else escaped(child))
    return Markup("".join(parts))


def _attribute(name: str, value: object) -> str:
    key = name.removesuffix("_").replace("_", "-")
    return f' {key}="{key if value is True else escaped(value)}"'
