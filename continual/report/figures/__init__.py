"""Figures: charts and tables as plain data, and how they are drawn as SVG and written as HTML, CSV, Markdown, PNG.

A chart is a small dataclass of numbers and names (`data`). Everything else follows from it: its drawing (`draw`), the
table behind it, and the files for a pull request (`files`). No chart knows the page that it is on.
"""

from continual.report.figures.data import (
    Bars,
    Chart,
    Column,
    Dendrogram,
    Forest,
    Heat,
    Lines,
    Node,
    Pairs,
    Series,
    Table,
    Tree,
)
from continual.report.figures.draw import draw

__all__ = [
    "Bars",
    "Chart",
    "Column",
    "Dendrogram",
    "Forest",
    "Heat",
    "Lines",
    "Node",
    "Pairs",
    "Series",
    "Table",
    "Tree",
    "draw",
]
