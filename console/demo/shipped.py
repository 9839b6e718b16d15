"""Where the demo's manifests are: in a checkout, or in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def examples() -> Path:
    """Folder of the demo's manifests: the copy that a wheel carries, else the source tree's own."""
    console_room = Path(__file__).resolve().parents[1]
    carried = console_room / "examples" / "demo"
    return carried if carried.is_dir() else console_room.parent / "examples" / "demo"
