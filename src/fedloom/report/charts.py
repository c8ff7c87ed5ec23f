"""Charts as plain data for plotly.js: a figure is {"data": [...], "layout": {...}}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any, Literal

from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.style import ACCENT, DASHES, MARKERS, NEUTRAL, SERIES, WARM, layout

Figure = dict[str, Any]
Points = Mapping[int, float]
Extreme = Literal["highest", "lowest"]

_LABEL_LETTERS = 18
_ROOM_FOR_TEXT = 1.45  # of the longest bar, so that its amount still fits on a narrow telephone


def lines(
    by_label: Mapping[str, Points],
    y_title: str,
    *,
    strong: str | None = None,
    mark: Extreme = "highest",
    apart: int = len(SERIES),
    say: Language = ENGLISH,
) -> Figure:
    """Values by round, one line per label. Up to `apart` labels have a look of their own; of more, all are thin and
    grey but the one that ends highest or lowest.

    strong: the label drawn thick, such as all clients together.  mark: which end is of interest among many.
    """
    weak = [label for label in by_label if label != strong]
    many = len(weak) > apart
    sign = 1 if mark == "highest" else -1
    marked = max(weak, key=lambda label: sign * _last(by_label[label])) if many else None
    order = [label for label in weak if label != marked]
    order += [label for label in (marked, strong) if label is not None and label in by_label]
    data = []
    for number, label in enumerate(order):
        look = _line_look(number, thick=label == strong, marked=label == marked, many=many)
        weakest = many and label not in (marked, strong)
        name = say(f"chart.{mark}", name=label) if label == marked else label
        shown = len(order) > 1 and (not many or label in (marked, strong) or number == 0)
        group = say("chart.each") if weakest else label
        data.append(_line(name, group if weakest else name, group, by_label[label], look, shown, say))
    return {"data": data, "layout": layout(340, _round_axis(by_label, say), {"title": {"text": y_title}, "nticks": 6})}


def dots(
    rows: Sequence[str],
    series: Mapping[str, Mapping[str, float | None]],
    x_title: str,
    named: Callable[[str], str] = str,
) -> Figure:
    """One line per row, one marker per series on it: how far apart base, alone and federated are.

    named: what a series is called.
    """
    data: list[dict[str, Any]] = [_spans(rows, series)]
    for name, values in series.items():
        colour, symbol, size = _STAGE_LOOKS.get(name, (NEUTRAL, "circle", 9))
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": plain(named(name)),
                "x": [_finite(values.get(row)) for row in rows], "y": list(range(len(rows))),
                "marker": {"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}},
                "customdata": [plain(row) for row in rows],
                "hovertemplate": "%{customdata}: %{x:.3f}<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    return {
        "data": data,
        "layout": layout(110 + 26 * len(rows), {"title": {"text": x_title}, "nticks": 6}, row_axis(rows)),
    }


def bars(rows: Sequence[str], series: Mapping[str, Mapping[str, float]], text: Callable[[float], str]) -> Figure:
    """Amounts by row, one bar per series, each with its amount written beside it."""
    data = [
        {
            "type": "bar", "orientation": "h", "name": plain(name), "showlegend": len(series) > 1,
            "x": [values.get(row, 0) for row in rows], "y": list(range(len(rows))),
            "text": [plain(text(values.get(row, 0))) for row in rows], "textposition": "outside", "cliponaxis": False,
            "marker": {"color": colour}, "customdata": [plain(row) for row in rows],
            "hovertemplate": "%{customdata}: %{text}<extra>%{fullData.name}</extra>",
        }
        for (name, values), colour in zip(series.items(), (ACCENT, WARM), strict=False)
    ]  # fmt: skip
    most = max((value for values in series.values() for value in values.values()), default=0)
    x = {"range": [0, _ROOM_FOR_TEXT * most or 1], "showticklabels": False, "showgrid": False}
    height = 48 + ((20 if len(rows) <= 10 else 13) * len(series) + 8) * len(rows)
    return {"data": data, "layout": {**layout(height, x, row_axis(rows)), "bargap": 0.25}}


def signed_bars(rows: Sequence[str], values: Mapping[str, float], text: Callable[[float], str]) -> Figure:
    """Differences by row, to the right where above 0 and to the left where below, each with its sign written."""
    numbers = [values[row] for row in rows]
    data = {
        "type": "bar", "orientation": "h", "showlegend": False, "x": numbers, "y": list(range(len(rows))),
        "text": [plain(text(value)) for value in numbers], "textposition": "outside", "cliponaxis": False,
        "marker": {"color": [ACCENT if value > 0 else WARM for value in numbers]},
        "customdata": [plain(row) for row in rows], "hovertemplate": "%{customdata}: %{text}<extra></extra>",
    }  # fmt: skip
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    room = 0.35 * (high - low) or 1
    x = {"range": [low - (room if low < 0 else 0), high + room], "showticklabels": False, "showgrid": False}
    height = 40 + (28 if len(rows) <= 10 else 20) * len(rows)
    return {"data": [data], "layout": {**layout(height, {**x, "zeroline": True}, row_axis(rows)), "bargap": 0.35}}


def plain(text: str) -> str:
    """Text that plotly shows as it is: it would take <b> or <a href> for markup."""
    return escape(text, quote=False)


_STAGE_LOOKS = {
    "base": (NEUTRAL, "circle-open", 9),
    "alone": (WARM, "diamond-open", 13),
    "federated": (ACCENT, "circle", 11),
}


def _line_look(number: int, *, thick: bool, marked: bool, many: bool) -> dict[str, Any]:
    if thick:
        return {"line": {"color": ACCENT, "width": 4}, "marker": {"color": ACCENT, "size": 8}, "opacity": 1}
    if many and not marked:
        return {"line": {"color": NEUTRAL, "width": 1.2}, "marker": {"color": NEUTRAL, "size": 3}, "opacity": 0.55}
    colour = WARM if marked else SERIES[number % len(SERIES)]
    place = 1 if marked else (number + number // len(SERIES)) % len(DASHES)
    line = {"color": colour, "width": 2.2, "dash": DASHES[place]}
    return {"line": line, "marker": {"color": colour, "size": 7, "symbol": MARKERS[place]}, "opacity": 1}


def _line(
    label: str, name: str, group: str, points: Points, look: dict[str, Any], shown: bool, say: Language
) -> dict[str, Any]:
    rounds, at = sorted(points), say("round.number", round="%{x}")
    return {
        "type": "scatter", "mode": "lines+markers", "name": plain(name),
        "legendgroup": plain(group), "showlegend": shown, **look,
        "x": rounds, "y": [_finite(points[number]) for number in rounds],
        "text": plain(label), "hovertemplate": f"%{{text}}, {at}: %{{y:.3f}}<extra></extra>",
    }  # fmt: skip


def _spans(rows: Sequence[str], series: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """The thin line from the smallest to the largest value of each row; None lifts the pen."""
    x: list[float | None] = []
    y: list[int | None] = []
    for number, row in enumerate(rows):
        values = [value for found in series.values() if (value := _finite(found.get(row))) is not None]
        if values:
            x += [min(values), max(values), None]
            y += [number, number, None]
    line = {"color": NEUTRAL, "width": 1.2}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": line,
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def row_axis(rows: Sequence[str]) -> dict[str, Any]:
    """Row names by number, so that names cut to the same letters stay apart; the first row is on top."""
    names = [row if len(row) <= _LABEL_LETTERS else row[: _LABEL_LETTERS - 1] + "…" for row in rows]
    ticks = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": [plain(name) for name in names]}
    return {**ticks, "range": [len(rows) - 0.4, -0.6], "showgrid": False}


def _round_axis(by_label: Mapping[str, Points], say: Language) -> dict[str, Any]:
    rounds = sorted({number for points in by_label.values() for number in points})
    few = {"tickmode": "array", "tickvals": rounds} if len(rounds) <= 12 else {"nticks": 8, "tickformat": "d"}
    return {"title": {"text": say("round")}, "showgrid": False, **few}


def _last(points: Points) -> float:
    finite = [points[number] for number in sorted(points) if isfinite(points[number])]
    return finite[-1] if finite else 0.0


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
