"""The version tree: versions from left to right in the order of creation, one lane per line of descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from continual.report.figures.axes import SMALL
from continual.report.figures.data import Node, VersionTree
from continual.report.figures.numbers import short
from continual.report.figures.svg import Svg, text_width

LANE, MARGIN = 46.0, 26.0
COLOURS = {"root": "axis", "accepted": "series-1", "refused": "bad", "trained": "quiet", "current": "good"}


def draw_tree(chart: VersionTree, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
    """Return the chart as SVG."""
    nodes = chart.nodes
    lanes = place_in_lanes(nodes)
    top = 24.0
    height = top + LANE * (max(lanes, default=0) + 1)
    apart = min(96.0, (width - 2 * MARGIN) / max(1, len(nodes) - 1))
    spots = {node.name: (MARGIN + apart * place, top + LANE * lanes[place]) for place, node in enumerate(nodes)}
    svg = Svg(width, height, palette)
    for node in nodes:
        if node.parent in spots:
            _edge(svg, spots[node.parent], spots[node.name], node, apart)
    room = max((text_width(node.name, SMALL) for node in nodes), default=0.0) + 8
    every = max(1, -int(-room // max(apart, 1e-6)))
    for place, node in enumerate(nodes):
        x, y = spots[node.name]
        r = min(8.0, max(2.5, 0.4 * apart))
        _node(svg, x, y, r, node)
        last = place == len(nodes) - 1
        if node.state == "current" or last or (place % every == 0 and len(nodes) - 1 - place >= every):
            weight = 650 if node.state == "current" else None
            svg.text(x, y + 23, node.name, "ink", text_anchor="middle", font_size=SMALL, font_weight=weight)
        if apart >= 60 and (node.recipe or node.note):
            note = short(node.recipe or node.note, int(apart / 8))
            svg.text(x, y - 13, note, text_anchor="middle", font_size=SMALL - 1)
    return svg.render(chart.title, chart.about, identity)


def place_in_lanes(nodes: Sequence[Node]) -> list[int]:
    """Return the lane of each node: 0 for the lineage of the current version, another one for each other line.

    A line is a version, its first child, the first child of that child, and so on. It occupies its lane from the
    position of the version where it branches off, because its edge runs there. So no edge runs through another
    version. Lines that don't overlap share a lane.
    """
    parents = {node.name: node.parent for node in nodes}
    current = next((node.name for node in nodes if node.state == "current"), None)
    trunk: set[str] = set()
    while current is not None and current not in trunk:
        trunk.add(current)
        current = parents.get(current)
    places = {node.name: place for place, node in enumerate(nodes)}
    heads: dict[str, str] = {}  # the first version of each version's line
    spans: dict[str, tuple[int, int]] = {}  # the first and last position of each line, by its head
    continued: set[str] = set()
    for place, node in enumerate(nodes):
        if node.name in trunk:
            continue
        parent = node.parent or ""
        if parent in heads and parent not in continued:
            heads[node.name] = heads[parent]
            continued.add(parent)
        else:
            heads[node.name] = node.name
        head = heads[node.name]
        spans[head] = (spans[head][0] if head in spans else places.get(parent, place), place)
    lanes: dict[str, int] = {}
    taken: dict[int, list[tuple[int, int]]] = {}  # the spans of the lines in each lane
    for head, (start, end) in spans.items():
        lane = next(lane for lane in count(1) if all(end <= a or b <= start for a, b in taken.get(lane, [])))
        taken.setdefault(lane, []).append((start, end))
        lanes[head] = lane
    return [0 if node.name in trunk else lanes[heads[node.name]] for node in nodes]


def _edge(svg: Svg, parent: tuple[float, float], child: tuple[float, float], node: Node, apart: float) -> None:
    refused = node.state == "refused"
    style: dict[str, Any] = {
        "fill": "none",
        "stroke": "bad" if refused else "axis",
        "stroke_width": 2,
        "stroke_dasharray": "3 4" if refused else None,
    }
    (x1, y1), (x2, y2) = parent, child
    if y1 == y2:
        svg.add("path", d=f"M{x1:.1f} {y1:.1f}H{x2:.1f}", **style)
        return
    turn = min(34.0, apart)  # reaches its lane before the next version, and passes beside the name below the parent
    start, middle, end = (x1 + share * turn for share in (0.3, 0.7, 1.0))
    curve = f"M{x1:.1f} {y1:.1f}H{start:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {end:.1f} {y2:.1f}"
    svg.add("path", d=f"{curve}H{x2:.1f}", **style)


def _node(svg: Svg, x: float, y: float, r: float, node: Node) -> None:
    states = {
        "root": "root base",
        "accepted": "passed the gate",
        "refused": "refused",
        "trained": "",
        "current": "current version",
    }
    texts = [states[node.state], f"trained by the recipe {node.recipe}" if node.recipe else ""]
    if node.parent is not None:
        texts += [f"learned {node.note}" if node.note else "", f"from {node.parent}"]
    tip = f"{node.name}: {', '.join(filter(None, texts))}"
    colour = COLOURS[node.state]
    if node.state == "refused":
        svg.add("circle", cx=x, cy=y, r=r, fill="card", stroke=colour, stroke_width=2, data_tip=tip)
        c = 0.4 * r
        svg.add("path", d=f"M{x - c:.1f} {y - c:.1f}l{2 * c:.1f} {2 * c:.1f}m0 {-2 * c:.1f}l{-2 * c:.1f} {2 * c:.1f}",
                stroke=colour, stroke_width=1.8, fill="none", pointer_events="none")  # fmt: skip
        return
    if node.state == "current":
        svg.add("circle", cx=x, cy=y, r=r + 4, fill=colour, fill_opacity=0.22)
    svg.add("circle", cx=x, cy=y, r=r, fill=colour, data_tip=tip)
