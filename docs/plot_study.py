"""Write docs/study.svg: what each cell of the study gains, against what it loses out of domain.

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
"""The joint training that a regime's region is measured by."""
COLOURS = {"joint": "#b2182b", "published": "#762a83", "ours": "#1b7837", "other": "#2166ac"}
TITLES = {"hard": "the hard stream", "easy": "the standard stream"}
REGIMES = {"hard": ("hard", "defaults-hard"), "easy": ("easy", "defaults")}
"""The regimes of the study whose cells a panel shows: what a name leaves out differs, the stream does not."""
OURS = {"defaults", "defaults-hard"}


def kind(cell: str) -> str:
    """Return the colour that a cell has, by name."""
    if "recipe=joint" in cell:
        return "joint"
    if "recipe=" in cell or "merge=equal" in cell:
        return "published"
    return "ours" if cell in OURS else "other"


def shown(results: list[dict[str, Any]], regime: str) -> list[dict[str, Any]]:
    """Return the results that a panel shows."""
    return [found for found in results if found["cell"].split()[0] in REGIMES[regime]]


def panel(results: list[dict[str, Any]], regime: str, top: float) -> list[str]:
    """Return one regime's plot, and its legend, as SVG."""
    cells = sorted(shown(results, regime), key=lambda found: -found["gain"])
    reference = next(found for found in cells if found["cell"] == REFERENCES[regime])
    low = min(-1.0, *(found["ood"] for found in cells)) - 0.3
    high = max(0.5, *(found["ood"] for found in cells)) + 0.3
    floor, ceiling = min(found["gain"] for found in cells) - 0.4, max(found["gain"] for found in cells) + 0.4
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
    for number, found in enumerate(cells, start=1):
        x, y = place(found["ood"], found["gain"])
        colour, row = COLOURS[kind(found["cell"])], top + LINE * number
        name = found["cell"].removeprefix(f"{regime} ").replace("defaults-hard", "defaults")
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
    # One model may have been trained by two names, and scored at the end or at every step: its figures are the same.
    screened = list({found["sha256"]: found for found in results if found["scored"].startswith("cut 300")}.values())
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
