"""A whole HTML file: style, content, charts and the chart library in one, and nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources

from fedloom.errors import FedLoomError
from fedloom.report.charts import Figure
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, element, folded, join
from fedloom.report.style import CSS

# The browser itself refuses whatever would go out to the network, even if a value slipped through as markup.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
# On paper everything is open, and the charts are as wide as the paper and not as the screen.
_DRAW = """
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [id, figure] of Object.entries(figures))
  Plotly.newPlot(id, figure.data, figure.layout, {displayModeBar: false, responsive: true, showTips: false});
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
  for (const id of Object.keys(figures)) Plotly.relayout(id, {width: 660});
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
  for (const id of Object.keys(figures)) Plotly.relayout(id, {width: null, autosize: true});
});
"""


class Figures:
    """The charts of one document, each under an id of its own."""

    def __init__(self, say: Language = ENGLISH) -> None:
        self.say = say
        self.by_id: dict[str, Figure] = {}

    def add(self, id_: str, title: str, figure: Figure, numbers: Html, *, says: str, unfolded: bool = False) -> Html:
        """A chart with its title, what it says, and its numbers in a table behind it.

        Title and description are also those of the picture, for who hears the page; a keyboard reaches it.

        Raises: ValueError for an id that is taken.
        """
        if id_ in self.by_id:
            raise ValueError(f"two charts with the id {id_!r}")
        self.by_id[id_] = figure
        chart = element(
            "div",
            id=id_,
            class_="chart",
            role="img",
            tabindex="0",
            aria_labelledby=f"{id_}-title",
            aria_describedby=f"{id_}-says",
            style=f"min-height: {figure['layout']['height']}px",
        )
        return element(
            "figure",
            element("h3", title, id=f"{id_}-title"),
            element("figcaption", says, id=f"{id_}-says"),
            chart,
            folded(self.say("chart.numbers"), numbers, unfolded=unfolded),
        )


def document(
    title: str,
    header: Html,
    content: Html,
    footer: Html,
    figures: Mapping[str, Figure],
    say: Language = ENGLISH,
) -> str:
    """One self-contained page. Raises: FedLoomError where plotly is not installed and there are charts."""
    head = join(
        (
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", Html(CSS)),
        )
    )
    body = join(
        (element("header", header), element("main", content), element("footer", footer), _scripts(figures, say))
    )
    return f'<!DOCTYPE html>\n<html lang="{say.code}"><head>{head}</head>\n<body>{body}</body></html>\n'


def _scripts(figures: Mapping[str, Figure], say: Language) -> Html:
    if not figures:
        return Html()
    data = Html(_script_safe(json.dumps(figures, allow_nan=False, separators=(",", ":"))))
    return join(
        (
            element("noscript", element("p", say("chart.script"))),
            element("script", data, type="application/json", id="figures"),
            element("script", Html(_plotly())),
            element("script", Html(_DRAW)),
        )
    )


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly() -> str:
    """plotly.js as the Python package carries it."""
    try:
        return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise FedLoomError(
            "the charts of a report need plotly", found="none", do="Install it: pip install 'fedloom[report]'"
        ) from error
