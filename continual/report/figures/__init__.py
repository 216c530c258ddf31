"""Charts and tables as plain data, and their drawings as SVG.

A chart is a small dataclass of numbers and names (`data`). Its drawing (`draw`), its table and its files
(`continual.report.files`) are made from it. A chart doesn't depend on the page that shows it.
"""

from continual.report.figures.data import (
    BarChart,
    Chart,
    Dendrogram,
    ForestPlot,
    HeatMap,
    LineChart,
    Node,
    PairMatrix,
    Series,
    Table,
    TableColumn,
    VersionTree,
)
from continual.report.figures.draw import draw_chart

__all__ = [
    "BarChart",
    "Chart",
    "Dendrogram",
    "ForestPlot",
    "HeatMap",
    "LineChart",
    "Node",
    "PairMatrix",
    "Series",
    "Table",
    "TableColumn",
    "VersionTree",
    "draw_chart",
]
