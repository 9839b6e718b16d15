"""JSON of nouns, views, states and plans: strict both ways, numpy columns as dtype, shape and base64."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return {
            "dtype": little.dtype.str,
            "shape": list(value.shape),
            "base64": base64.b64encode(little.tobytes()).decode(),
        }
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form; use a Struct, a number or a column")


def _decode(kind: Any, value: Any) -> Any:
    if getattr(kind, "__origin__", kind) is np.ndarray:
        raw = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["dtype"]))
        array = raw.astype(raw.dtype.newbyteorder("="), copy=True).reshape(value["shape"])
        array.flags.writeable = False
        return array
    raise NotImplementedError(f"cannot read {kind}")


def to_json(value: Any) -> bytes:
    """Encode with sorted keys, so that equal values have equal bytes.

    Raises NotImplementedError for a type without a JSON form.
    """
    return msgspec.json.encode(value, enc_hook=_encode, order="deterministic")


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Decode strictly into `kind`.

    Raises msgspec.ValidationError naming the path of the first fault.
    """
    return msgspec.json.decode(data, type=kind, dec_hook=_decode)


def to_builtins(value: Any) -> Any:
    """The same as JSON, as Python builtins (for the ledger and the command line)."""
    return msgspec.to_builtins(value, enc_hook=_encode, order="deterministic")


def from_builtins(value: Any, kind: type[T]) -> T:
    """Decode builtins strictly into `kind`; errors as `from_json`."""
    return msgspec.convert(value, type=kind, dec_hook=_decode)
