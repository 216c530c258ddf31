"""Write docs/study.svg: the gain of each cell of the study, against its change out of domain.

python docs/plot_study.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parent / "study.svg"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "study.jsonl"
WIDTH, TOP, PLOT, LEFT, LEGEND, LINE = 900, 48, 300, 52, 470, 17
REFERENCES = {"easy": "easy epochs=2 lr=1e-3 recipe=joint", "hard": "hard recipe=joint"}
"""Joint training of each regime. The shaded region starts at 95 % of its gain."""
COLOURS = {"joint": "#b2182b", "published": "#762a83", "ours": "#1b7837", "other": "#2166ac"}
TITLES = {"hard": "the hard stream", "easy": "the standard stream"}
REGIMES = {"hard": ("hard", "defaults-hard"), "easy": ("easy", "defaults")}
"""Regimes shown in one panel. They share a stream and differ in the settings that a cell's name leaves out."""
OURS = {"defaults", "defaults-hard"}


def group(cell: str) -> str:
    """Return the group of a cell, a key of `COLOURS`."""
    if "recipe=joint" in cell:
        return "joint"
    if "recipe=" in cell or "merge=equal" in cell:
        return "published"
    return "ours" if cell in OURS else "other"


def shown(results: list[dict[str, Any]], regime: str) -> list[dict[str, Any]]:
    """Return the results of one panel."""
    return [result for result in results if result["cell"].split()[0] in REGIMES[regime]]


def panel(results: list[dict[str, Any]], regime: str, top: float) -> list[str]:
    """Return one panel and its legend as SVG."""
    cells = sorted(shown(results, regime), key=lambda result: -result["gain"])
    reference = next(result for result in cells if result["cell"] == REFERENCES[regime])
    low = min(-1.0, *(result["ood"] for result in cells)) - 0.3
    high = max(0.5, *(result["ood"] for result in cells)) + 0.3
    floor, ceiling = min(result["gain"] for result in cells) - 0.4, max(result["gain"] for result in cells) + 0.4
    right, bottom = LEGEND - 30, top + PLOT

    def place(ood: float, gain: float) -> tuple[float, float]:
        across = LEFT + (ood - low) / (high - low) * (right - LEFT)
        return across, bottom - (gain - floor) / (ceiling - floor) * PLOT

    zero, wanted = place(0, 0.95 * reference["gain"])
    parts = [
        f'<text x="{LEFT}" y="{top - 14}" font-weight="bold">{TITLES[regime]}</text>',
        f'<rect x="{zero:.1f}" y="{top}" width="{right - zero:.1f}" height="{wanted - top:.1f}" fill="#e5f5e0"/>',
        f'<rect x="{LEFT}" y="{top}" width="{right - LEFT}" height="{PLOT}" fill="none" stroke="#999"/>',
    ]
    for points in range(int(low) - 1, int(high) + 1):
        if low < points < high:
            x, _ = place(points, floor)
            parts.append(f'<path d="M{x:.1f} {top}v{PLOT}" stroke="#ddd"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_signed(points)}</text>')
    for points in range(int(floor), int(ceiling) + 1):
        if floor < points < ceiling:
            _, y = place(low, points)
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_signed(points)}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">mean change out of domain, points</text>')
    parts.append(
        f'<text transform="translate(16 {top + PLOT / 2}) rotate(-90)" text-anchor="middle">gain of ACC, points</text>'
    )
    for number, result in enumerate(cells, start=1):
        x, y = place(result["ood"], result["gain"])
        colour, row = COLOURS[group(result["cell"])], top + LINE * number
        name = result["cell"].removeprefix(f"{regime} ").replace("defaults-hard", "defaults")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="{colour}" fill-opacity="0.85"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="#fff" font-size="11">{number}</text>'
        )
        parts.append(f'<text x="{LEGEND + 16}" y="{row}" text-anchor="end" fill="{colour}">{number}</text>')
        parts.append(f'<text x="{LEGEND + 24}" y="{row}" fill="{colour}">{name}</text>')
    return parts


def _signed(points: int) -> str:
    return f"{points:+d}" if points else "0"


def draw() -> str:
    """Return the picture as SVG."""
    results = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    # A model trained under two names, or scored at the end and again at every step, is drawn once. Cells of the wide
    # suite have other OOD tasks.
    screened = list(
        {
            result["sha256"]: result
            for result in results
            if result["scored"].startswith("cut 300") and "wide" not in result["scored"]
        }.values()
    )
    body, top = [], float(TOP)
    for regime in ("hard", "easy"):
        count = len(shown(screened, regime))
        body += panel(screened, regime, top)
        top += max(PLOT + 90, LINE * count + 60)
    head = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
        f'viewBox="0 0 {WIDTH} {top - 30:.0f}">',
        "<title>Gain of the study's cells against their loss out of domain</title>",
        f'<rect width="{WIDTH}" height="{top:.0f}" fill="#fff"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
