"""All looks of the report: colours, style sheet, and the layout that every chart starts from."""

from __future__ import annotations

from typing import Any

LIGHT, DARK = "#ffffff", "#15191f"

# Each has a contrast of at least 3:1 on both backgrounds; lines differ by dash and marker too.
ACCENT, WARM = "#2b7fd4", "#d4661a"
NEUTRAL = "#7d8792"
SERIES = ("#d4661a", "#1f9168", "#9a66d6", "#d1467c", "#8a7d1c", "#1d8c9e")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

_JAPANESE = '"Hiragino Sans", "Hiragino Kaku Gothic ProN", "Yu Gothic UI", Meiryo, "Noto Sans CJK JP", "Noto Sans JP"'
FONT = f'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", {_JAPANESE}, sans-serif'
JAPANESE_FONT = f'system-ui, -apple-system, {_JAPANESE}, "Segoe UI", Roboto, sans-serif'

# Ink on paper and on cards has a contrast of at least 4.5:1 (a test reckons it).
LIGHT_INKS = {"paper": LIGHT, "card": "#f5f7f9", "ink": "#1b222a", "soft": "#56616d", "line": "#dde2e7",
    "accent": "#1c64ad"}  # fmt: skip
DARK_INKS = {"paper": DARK, "card": "#1e242c", "ink": "#e8ecf0", "soft": "#a3aeb9", "line": "#333c46",
    "accent": "#7db6f0"}  # fmt: skip


def _variables(inks: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in inks.items())


CSS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT_INKS)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK_INKS)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT_INKS)} }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 {FONT}; }}
main, header, footer {{ max-width: 1040px; margin: 0 auto; padding: 0 clamp(14px, 4vw, 32px);
  overflow-wrap: anywhere; }}
header {{ padding-top: 32px; }}
h1 {{ font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }}
h2, .part h3 {{ font-size: 1.25rem; margin: 44px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }}
h3, .part h4 {{ font-size: 1rem; margin: 26px 0 2px; }}
.part > h2 {{ font-size: clamp(1.35rem, 4.5vw, 1.7rem); line-height: 1.25; margin: 40px 0 0; padding: 14px 0 0;
  border-top: 3px solid var(--accent); letter-spacing: -.01em; }}
.part > h2 + section > h3 {{ border-top: 0; margin-top: 10px; }}
nav {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 12px; }}
a {{ color: var(--accent); }}
:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }}
code {{ font: .9em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
ul {{ padding-left: 1.2em; margin: 6px 0; }}
:lang(ja) {{ letter-spacing: 0; line-break: strict; }}
body:lang(ja) {{ font-family: {JAPANESE_FONT}; line-height: 1.75; }}
p {{ margin: 6px 0; }}
.soft, figcaption, footer {{ color: var(--soft); font-size: .92rem; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 22px 0 0; }}
.tile {{ background: var(--card); border-radius: 10px; padding: 12px 14px; }}
.tile b {{ display: block; font-size: clamp(1.2rem, 5vw, 1.5rem);
  line-height: 1.25; font-variant-numeric: tabular-nums; }}
.tile span {{ display: block; color: var(--soft); font-size: .86rem; }}
figure {{ margin: 22px 0 6px; }}
figure h3, .part figure h4 {{ margin: 0; }}
.chart {{ width: 100%; margin: 4px 0 2px; }}
.chart text {{ fill: var(--soft) !important; }}
.chart .hoverlayer text {{ fill: #ffffff !important; }}
.chart .gridlayer path, .chart .zerolinelayer path {{ stroke: var(--line) !important; }}
details {{ margin: 4px 0 12px; }}
summary {{ cursor: pointer; color: var(--accent); font-size: .92rem; padding: 4px 0; }}
.scroll {{ overflow-x: auto; margin: 6px 0; }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }}
th, td {{ padding: 5px 16px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; }}
th {{ font-weight: 500; }}
thead th {{ color: var(--soft); vertical-align: bottom; }}
th.figure, td.figure {{ text-align: right; padding-left: 8px; }}
.long {{ display: inline-block; white-space: normal; min-width: 16em; max-width: 36em; }}
tr.total > * {{ border-top: 2px solid var(--line); font-weight: 500; }}
strong {{ font-weight: 700; }}
.star {{ display: inline-block; width: 0; }}
.answers {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 10px; }}
.answer {{ background: var(--card); border-radius: 10px; padding: 10px 14px; white-space: pre-wrap; }}
.answer h4, .answer h5 {{ margin: 0 0 4px; font-size: .86rem; font-weight: 500; color: var(--soft); }}
.note {{ border-left: 4px solid {WARM}; background: var(--card); padding: 8px 14px; border-radius: 0 8px 8px 0; }}
.facts {{ display: grid; grid-template-columns: minmax(7em, max-content) 1fr; gap: 3px 18px; margin: 8px 0; }}
.facts dt {{ color: var(--soft); }}
.facts dd {{ margin: 0; }}
@media (max-width: 480px) {{ th, td {{ padding-right: 10px; }} }}
@media (max-width: 480px) {{ .facts {{ grid-template-columns: 1fr; gap: 0; }} .facts dd {{ margin-bottom: 8px; }} }}
footer {{ margin-top: 48px; padding-bottom: 40px; }}
@media print {{
  @page {{ margin: 15mm; }}
  body {{ font-size: 10.5pt; }}
  nav, noscript {{ display: none; }}
  main, header, footer {{ max-width: none; padding: 0; }}
  figure, tr, .tile, .answer {{ break-inside: avoid; }}
  h1, h2, h3, h4, summary {{ break-after: avoid; }}
  #part-figures {{ break-before: page; }}
  .scroll {{ overflow: visible; }}
  th, td {{ white-space: normal; }}
  summary {{ list-style: none; color: var(--soft); }}
}}
"""


def layout(height: int, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """The layout of a chart of this height in pixels: transparent, and without zooming: a finger scrolls the page."""
    axis = {
        "fixedrange": True,
        "automargin": True,
        "zeroline": False,
        "showline": False,
        "ticklen": 4,
        "tickcolor": "rgba(0,0,0,0)",
    }
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": NEUTRAL},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1 + 6 / height,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "itemclick": "toggle",
            "itemdoubleclick": "toggleothers",
        },
        "hoverlabel": {"bgcolor": "#2a323c", "bordercolor": "#2a323c", "font": {"color": "#ffffff"}, "namelength": -1},
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
    }
