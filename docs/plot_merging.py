"""Write docs/merging.svg: how much of the updates' norm each merge keeps, against the angle between the updates.

python docs/plot_merging.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from continual.merge.methods.karcher import karcher_coefficients
from continual.merge.methods.model_stock import model_stock_coefficients
from continual.merge.methods.multislerp import multislerp_coefficients
from continual.merge.methods.slerp import slerp_coefficients

PICTURE = Path(__file__).parent / "merging.svg"
COUNT = 4  # updates of norm 1, with the same angle between any two
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 60, 24, 210, 52
HIGHEST = 4.0


def equiangular(cosine: float, count: int = COUNT) -> Tensor:
    """Return the inner products of unit vectors with one cosine between all pairs."""
    return torch.full((count, count), cosine, dtype=torch.float64).fill_diagonal_(1.0)


def kept(coefficients: Callable[[Tensor], Tensor], cosine: float, count: int = COUNT) -> float:
    """Return the norm of the merged update."""
    products = equiangular(cosine, count)
    factors = coefficients(products)
    return math.sqrt(max(0.0, float(factors @ products @ factors)))


def equal(products: Tensor) -> Tensor:
    """Return equal weights with sum 1."""
    return torch.full((len(products),), 1 / len(products), dtype=torch.float64)


CURVES: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "task arithmetic (4 updates)": ("#b2182b", "", lambda c: kept(lambda g: torch.ones(len(g)).double(), c)),
    "multislerp (4)": ("#1b7837", "", lambda c: kept(lambda g: multislerp_coefficients(g, equal(g)), c)),
    "karcher (4)": ("#a6dba0", "7 7", lambda c: kept(lambda g: karcher_coefficients(g, equal(g)), c)),
    "slerp (2)": ("#762a83", "2 5", lambda c: kept(lambda g: slerp_coefficients(g, equal(g)), c, 2)),
    "plain mean (4)": ("#2166ac", "", lambda c: kept(equal, c)),
    "model stock (4)": ("#e08214", "", lambda c: kept(model_stock_coefficients, c)),
}


def place(degrees: float, norm: float) -> tuple[float, float]:
    """Return the position of a point in the picture, in pixels."""
    across = LEFT + degrees / 90 * (WIDTH - LEFT - RIGHT)
    return across, HEIGHT - BOTTOM - norm / HIGHEST * (HEIGHT - TOP - BOTTOM)


def draw() -> str:
    """Return the picture as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="13" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<title>Norm of the merged update against the angle between the updates</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for norm in range(int(HIGHEST) + 1):
        (x, y), (end, _) = place(0, norm), place(90, norm)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{norm}</text>')
    for degrees in range(0, 91, 15):
        x, y = place(degrees, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{degrees}°</text>')
    x, y = place(45, 0)
    parts.append(f'<text x="{x:.1f}" y="{y + 40:.1f}" text-anchor="middle">angle between any two updates</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">norm kept (each update has norm 1)</text>')
    for row, (name, (colour, dashes, curve)) in enumerate(CURVES.items()):
        points = [place(degrees, curve(math.cos(math.radians(degrees)))) for degrees in range(91)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes or "none"}"'
        parts.append(f'<polyline points="{line}" {style}/>')
        x, y = WIDTH - RIGHT + 16, TOP + 24 + 24 * row
        parts.append(f'<path d="M{x} {y - 4}h24" {style}/><text x="{x + 32}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
