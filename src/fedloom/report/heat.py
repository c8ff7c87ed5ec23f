"""A heat map of how similar rows are, in the order of a tree that is drawn beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedloom.aggregation.similarity import Merge
from fedloom.report.charts import Figure, plain, row_axis
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.style import ACCENT, NEUTRAL, WARM, layout

NAMED = 40  # rows up to which each has its name at the side; of more, the pointer tells
_ROOM = 130  # pixels for the names of the columns and the scale
_SHARE = 0.74  # of the width; what is left is the tree's
_MIDDLE = "rgba(125,135,146,0.10)"  # nearly the page, light or dark


def heat_map(
    names: Sequence[str], cosines: Sequence[Sequence[float]], merges: Sequence[Merge], say: Language = ENGLISH
) -> Figure:
    """Cosines of -1 to 1 for every two names, and the tree of its merges.

    names: in the order of rows and columns, such that those of each merge stand together.
    """
    size = max(6, min(26, 640 // max(1, len(names))))
    x = {**row_axis(names), "domain": [0, _SHARE], "range": [-0.5, len(names) - 0.5], "side": "bottom"}
    y = {**row_axis(names), "range": [len(names) - 0.5, -0.5]}
    if len(names) > NAMED:
        x, y = {**x, "showticklabels": False}, {**y, "showticklabels": False}
    figure_layout = layout(_ROOM + size * len(names), x, y)
    figure_layout["xaxis2"] = {
        "domain": [_SHARE + 0.02, 1], "range": [0, max((1 - merge.cosine for merge in merges), default=1) * 1.05 or 1],
        "fixedrange": True, "showgrid": False, "zeroline": False, "showticklabels": False,
    }  # fmt: skip
    data = [_cells(names, cosines, say), *([_tree(names, merges, say)] if merges else [])]
    return {"data": data, "layout": {**figure_layout, "showlegend": False}}


def _cells(names: Sequence[str], cosines: Sequence[Sequence[float]], say: Language) -> dict[str, Any]:
    places = list(range(len(names)))
    return {
        "type": "heatmap", "x": places, "y": places, "zmin": -1, "zmax": 1, "xgap": 1, "ygap": 1,
        "z": [[round(value, 4) for value in row] for row in cosines],
        "colorscale": [[0, WARM], [0.5, _MIDDLE], [1, ACCENT]],
        "customdata": [[f"{plain(row)}, {plain(column)}" for column in names] for row in names],
        "hovertemplate": "%{customdata}: %{z:.3f}<extra></extra>",
        "colorbar": {
            "orientation": "h", "thickness": 10, "len": _SHARE, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom",
            "outlinewidth": 0, "tickvals": [-1, 0, 1], "ticktext": ["−1", say("heat.middle"), "1"],
        },
    }  # fmt: skip


def _tree(names: Sequence[str], merges: Sequence[Merge], say: Language) -> dict[str, Any]:
    """From each of two groups to where they merge, 1 - cosine to the right; None lifts the pen."""
    ends: dict[tuple[str, ...], tuple[float, float]] = {(name,): (0.0, float(at)) for at, name in enumerate(names)}
    x: list[float | None] = []
    y: list[float | None] = []
    said: list[str] = []
    for merge in merges:
        (left_x, left_y), (right_x, right_y) = ends[merge.left], ends[merge.right]
        far = 1 - merge.cosine
        x += [left_x, far, far, right_x, None]
        y += [left_y, left_y, right_y, right_y, None]
        left, right = _group(merge.left, say), _group(merge.right, say)
        said += [say("heat.joined", left=left, right=right, cosine=f"{merge.cosine:.3f}")] * 5
        ends[merge.members] = far, (left_y + right_y) / 2
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "xaxis": "x2", "line": {"color": NEUTRAL, "width": 1.6},
        "text": said, "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _group(names: Sequence[str], say: Language) -> str:
    more = say("heat.group", name=names[0], count=len(names) - 1)
    return plain(names[0] if len(names) == 1 else more)
