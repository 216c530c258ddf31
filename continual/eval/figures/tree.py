"""The tree of descent: versions from left to right in the order they were made, a lane for each line of descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from continual.eval.figures.axes import SMALL
from continual.eval.figures.data import Node, Tree
from continual.eval.figures.numbers import short
from continual.eval.figures.svg import Svg, text_width

LANE, MARGIN = 46.0, 26.0
COLOURS = {"root": "axis", "accepted": "series-1", "refused": "bad", "trained": "quiet", "current": "good"}


def draw(chart: Tree, width: float, palette: Mapping[str, str] | None, identity: str) -> str:
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
            _edge(svg, spots[node.parent], spots[node.name], node)
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
        if apart >= 60 and node.note:
            svg.text(x, y - 13, short(node.note, int(apart / 8)), text_anchor="middle", font_size=SMALL - 1)
    return svg.render(chart.title, chart.about, identity)


def place_in_lanes(nodes: Sequence[Node]) -> list[int]:
    """Return the lane of each node: the line to what is in service is lane 0, each other line one of its own.

    A lane is used again once what was in it has ended.
    """
    parents = {node.name: node.parent for node in nodes}
    service = next((node.name for node in nodes if node.state == "current"), None)
    trunk: set[str] = set()
    while service is not None and service not in trunk:
        trunk.add(service)
        service = parents.get(service)
    last_child = {node.parent: place for place, node in enumerate(nodes)}
    lanes: dict[str, int] = {}
    busy: dict[int, int] = {}  # lane: the place up to which it is taken
    for place, node in enumerate(nodes):
        if node.name in trunk:
            lane = 0
        else:
            above = lanes.get(node.parent or "", 0)
            if above and busy.get(above, -1) <= place:
                lane = above
            else:
                lane = next(free for free in range(1, len(nodes) + 2) if busy.get(free, -1) < place)
        lanes[node.name] = lane
        busy[lane] = max(place, last_child.get(node.name, place))
    return [lanes[node.name] for node in nodes]


def _edge(svg: Svg, start: tuple[float, float], end: tuple[float, float], node: Node) -> None:
    refused = node.state == "refused"
    style: dict[str, Any] = {
        "fill": "none",
        "stroke": "bad" if refused else "axis",
        "stroke_width": 2,
        "stroke_dasharray": "3 4" if refused else None,
    }
    (x1, y1), (x2, y2) = start, end
    if y1 == y2:
        svg.add("path", d=f"M{x1:.1f} {y1:.1f}H{x2:.1f}", **style)
        return
    turn = min(34.0, x2 - x1)
    curve = f"M{x1:.1f} {y1:.1f}C{x1 + turn / 2:.1f} {y1:.1f} {x1 + turn / 2:.1f} {y2:.1f} {x1 + turn:.1f} {y2:.1f}"
    svg.add("path", d=f"{curve}H{x2:.1f}", **style)


def _node(svg: Svg, x: float, y: float, r: float, node: Node) -> None:
    learned = f", learned {node.note}" if node.note and node.parent is not None else ""
    states = {
        "root": "the root base",
        "accepted": "passed the gate",
        "refused": "refused",
        "trained": "trained by a recipe",
        "current": "in service",
    }
    tip = f"{node.name}: {states[node.state]}{learned}" + (f", from {node.parent}" if node.parent else "")
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
