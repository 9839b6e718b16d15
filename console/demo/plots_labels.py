"""Direct labels: beside the curve they name, instead of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from console.demo.plots_style import INK
from console.demo.words import clean


def side_labels(ax: Any, labels: Sequence[tuple[float, str, str]], gap: float = 14.0) -> None:
    """Labels right of the axes at data heights (value, text, colour of the swatch), pushed apart by `gap` pixels."""
    if not labels:
        return
    low, high = ax.get_ylim()
    pixels = ax.get_window_extent().height
    scale = ax.transData.transform
    base = ax.get_window_extent().y0
    order = sorted(range(len(labels)), key=lambda i: labels[i][0])
    wanted = [float(scale((0.0, min(max(labels[i][0], low), high)))[1] - base) for i in order]
    for index, at in zip(order, spread(wanted, gap, pixels), strict=True):
        _, text, colour = labels[index]
        ax.annotate(
            "■", (1.0, at / pixels), xycoords="axes fraction", xytext=(7, 0), textcoords="offset points",
            color=colour, fontsize=9, va="center", annotation_clip=False,
        )  # fmt: skip
        ax.annotate(
            clean(text, 80), (1.0, at / pixels), xycoords="axes fraction", xytext=(19, 0),
            textcoords="offset points", color=INK, fontsize=10.5, va="center", annotation_clip=False,
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float, height: float) -> list[float]:
    """Positions near the wanted ones (ascending), at least `gap` apart, inside [0, height] where they fit."""
    placed = list(wanted)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    over = placed[-1] - height if placed else 0.0
    if over > 0.0:
        placed[-1] -= over
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    return placed


def panel_title(ax: Any, text: str, colour: str) -> None:
    """The name of a panel, above its left corner, with the colour of what it shows."""
    ax.annotate(
        "■",
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        color=colour,
        fontsize=10,
    )
    ax.annotate(
        clean(text, 90), (0.0, 1.0), xycoords="axes fraction", xytext=(13, 6), textcoords="offset points", color=INK,
        fontsize=11, fontweight="bold",
    )  # fmt: skip
