"""YAML and JSON text as plain values that remember their lines.

Scalars are read as kubectl reads them: dates stay text, `1e6` is a number, a key given twice is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml

MOST_BYTES = 8 * 2**20
MOST_VALUES = 100_000
"""Bounds of one file: beyond them somebody pointed at the wrong file, or aliases multiply themselves."""

DEEPEST = 100

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASED = re.compile(r"([-+]?)0([xob])([0-9a-fA-F_]+)")
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BASES = {"x": 16, "o": 8, "b": 2}


class Fault(ValueError):
    """Text that cannot be read: the line (from 1) and a sentence."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line
        self.sentence = sentence


class Document(msgspec.Struct, frozen=True):
    """One document: its value, and the line of each value by dotted path (`spec.objectives[0].class`)."""

    value: Any
    line: int
    lines: dict[str, int]

    def line_of(self, path: str) -> int:
        """The line of a value, or of the nearest value around it."""
        while path and path not in self.lines:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return self.lines.get(path, self.line)


class _Loader(yaml.CSafeLoader):
    """Resolves nothing by itself: every plain scalar is text until `_scalar` has looked at it."""

    yaml_implicit_resolvers: dict[str, Any] = {}


def documents(text: str) -> Iterator[Document]:
    """The documents of a file, empty ones left out. Raises `Fault` at the first that cannot be read."""
    if len(text) > MOST_BYTES:
        raise Fault(1, f"this file has {len(text)} characters, at most {MOST_BYTES} are read; split it")
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield _Builder().document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        hint = 'check the indentation, and quote values that contain ": " or begin with a special character'
        raise Fault((mark.line + 1) if mark else 1, f"this is no YAML: {what}; {hint}") from None
    except yaml.YAMLError as error:
        raise Fault(1, f"this is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise Fault(1, f"values are nested deeper than {DEEPEST}; no manifest is") from None
    finally:
        loader.dispose()


class _Builder:
    """Builds one document's value and notes where each part of it begins."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}
        self._count = 0

    def document(self, node: yaml.Node) -> Document:
        return Document(self._value(node, "", 0), node.start_mark.line + 1, self._lines)

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        self._count += 1
        if self._count > MOST_VALUES:
            raise Fault(line, f"more than {MOST_VALUES} values in one document; aliases multiply them?")
        if depth > DEEPEST:
            raise Fault(line, f"values are nested deeper than {DEEPEST}; no manifest is")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        raise Fault(line, f"a value of the form {node.tag} is not known in manifests")

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise Fault(line, "a key must be a word, not a list or a mapping")
            key = str(key_node.value)
            below = f"{path}.{key}" if path else key
            if key in result:
                raise Fault(line, f"{below} is given twice; first in line {self._lines[below]}")
            self._lines[below] = line
            result[key] = self._value(value_node, below, depth + 1)
        return result


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    tag = str(node.tag)
    if not tag.endswith(":str"):
        raise Fault(node.start_mark.line + 1, f"the tag {tag} is not known in manifests; leave it out")
    if node.style:
        return text
    for read in _READERS:
        found = read(text)
        if found is not _NOT:
            return found
    return text


_NOT = object()


def _word(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    return False if text in _FALSE else _NOT


def _whole(text: str) -> Any:
    if not _INT.fullmatch(text) or len(text) > 40:
        return _NOT
    return int(text.replace("_", ""))


def _fraction(text: str) -> Any:
    return float(text) if _FLOAT.fullmatch(text) and len(text) <= 40 else _NOT


def _based(text: str) -> Any:
    found = _BASED.fullmatch(text)
    if not found or len(text) > 40:
        return _NOT
    try:
        return int(found[1] + found[3].replace("_", ""), _BASES[found[2]])
    except ValueError:
        return _NOT


_READERS: tuple[Callable[[str], Any], ...] = (_word, _whole, _fraction, _based)
