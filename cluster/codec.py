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
    if kind is object:  # a policy's configuration: plain JSON, checked by the registry
        return value
    if getattr(kind, "__origin__", kind) is np.ndarray:
        return _column(value)
    raise NotImplementedError(f"cannot read {kind}")


def _column(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        data = base64.b64decode(value["base64"], validate=True)
        raw = np.frombuffer(data, dtype=np.dtype(value["dtype"])).reshape(value["shape"])
    except (KeyError, TypeError, ValueError) as error:
        # ValueError is what msgspec turns into a ValidationError with the path.
        raise ValueError(
            f"a column is an object of dtype, shape and base64 that fit together ({error})"
        ) from error
    array = raw.astype(raw.dtype.newbyteorder("="), copy=True)
    array.flags.writeable = False
    return array


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
