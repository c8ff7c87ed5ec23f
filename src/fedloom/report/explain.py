"""Token by token and layer by layer, as one HTML file: the text itself shaded, a heat map, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from fedloom.evaluation.shares import TokenShares
from fedloom.report.document import document
from fedloom.report.explain_table import short_names
from fedloom.report.markup import Html, element, folded, join, section, table
from fedloom.report.shading import Shading, percent, shading_of, visible
from fedloom.report.units import plural

ROW, LABEL, HEAD = 18, 132, 22  # pixels: height of a token, room for its text, room for the numbers of layers
WIDEST, NARROWEST, ALL_COLUMNS = 44, 14, 760  # pixels of a column, and of all of them where they are few
LABEL_LETTERS = 16


def explain_page(found: TokenShares) -> str:
    """The whole file; it needs no chart library and fetches nothing."""
    blocks = found.by_block
    shading = shading_of(share for row in blocks.values() for share in row)
    title = f"What {found.client} takes from the rest of the world"
    said = f"{found.run} · method {found.method} · round {found.round} · {plural(len(found.tokens), 'token')}"
    content = join(
        (
            element("p", _summary(found)),
            _legend(shading),
            section("The text", element("p", "Each token by its mean over all layers."), _text(found, shading)),
            section("Layer by layer", _picture(found, blocks, shading), _numbers(found, blocks), _modules(found)),
        )
    )
    header = join((element("h1", title), element("p", said)))
    footer = element("p", "Written by FedLoom. This file fetches nothing from any network.")
    return document(f"{title} – FedLoom", header, content, footer, {})


def _summary(found: TokenShares) -> str:
    by_block = {name: sum(row) / len(row) for name, row in found.by_block.items()}
    most, least = (choose(by_block, key=by_block.__getitem__) for choose in (max, min))
    return (
        f"Over all layers and tokens the rest of the world has {percent(found.mean)}% of the weight, the client's own "
        f"adapter what is left. Most it has in {most} ({percent(by_block[most])}%), least in {least} "
        f"({percent(by_block[least])}%)." + (f" {found.chosen}." if found.chosen else "")
    )


def _legend(shading: Shading) -> Html:
    """From all own to all of the others, as far as colours go."""
    steps = [0.5 + shading.span * step for step in (-1, -0.5, 0, 0.5, 1)]
    marks = [element("span", f" {percent(share)}% ", style=f"background: {shading.css(share)}") for share in steps]
    return element("p", "mostly its own ", *marks, " mostly the others'", class_="soft")


def _text(found: TokenShares, shading: Shading) -> Html:
    words = [
        element("span", token, style=f"background: {shading.css(share)}", title=f"{percent(share)}%")
        for token, share in zip(found.tokens, found.by_token, strict=True)
    ]
    return element("div", *words, class_="answer")


def _picture(found: TokenShares, blocks: Mapping[str, list[float]], shading: Shading) -> Html:
    """Tokens down, blocks of layers across."""
    column = max(NARROWEST, min(WIDEST, ALL_COLUMNS // len(blocks)))
    width, height = LABEL + column * len(blocks), HEAD + ROW * len(found.tokens)
    cells = [
        _cell(number, row, column, f"{visible(token)}, {block}", share, shading)
        for number, (block, shares) in enumerate(blocks.items())
        for row, (token, share) in enumerate(zip(found.tokens, shares, strict=True))
    ]
    label = "shares of the rest of the world by token and layer; the numbers follow"
    svg = element(
        "svg", *_heads(blocks, column), *_labels(found), *cells, class_="chart", role="img", aria_label=label,
        viewBox=f"0 0 {width} {height}", style=f"width: {width}px; max-width: none",
    )  # fmt: skip
    return element("figure", element("div", svg, class_="scroll", tabindex="0"))


def _cell(number: int, row: int, column: int, what: str, share: float, shading: Shading) -> Html:
    x, y = LABEL + number * column, HEAD + row * ROW
    hint = element("title", f"{what}: {percent(share)}%")
    colour, strength = shading.colour(share), f"{shading.strength(share):.2f}"
    return element(
        "rect", hint, x=str(x), y=str(y), width=str(column - 1), height=str(ROW - 1), fill=colour, fill_opacity=strength
    )


def _heads(blocks: Mapping[str, object], column: int) -> list[Html]:
    """The number of each block, or of some where they would touch; none where blocks have long names."""
    names = list(short_names(blocks).values())
    every = 1 + 10 * max(map(len, names)) // column
    return [
        _words(name, LABEL + number * column + column // 2, HEAD - 7, "middle")
        for number, name in enumerate(names)
        if number % every == 0 and len(name) <= LABEL_LETTERS
    ]


def _labels(found: TokenShares) -> list[Html]:
    cut = [
        token if len(token) <= LABEL_LETTERS else token[: LABEL_LETTERS - 1] + "…"
        for token in map(visible, found.tokens)
    ]
    return [_words(token, LABEL - 6, HEAD + row * ROW + 13, "end") for row, token in enumerate(cut)]


def _words(text: str, x: int, y: int, anchor: str) -> Html:
    return element("text", text, x=str(x), y=str(y), text_anchor=anchor, font_size="12")


def _numbers(found: TokenShares, blocks: Mapping[str, list[float]]) -> Html:
    columns = [*blocks.values(), found.by_token]
    rows = [
        [visible(token), *map(percent, row)]
        for token, row in zip(found.tokens, zip(*columns, strict=True), strict=True)
    ]
    return folded("The numbers, %", table(["token", *short_names(blocks).values(), "mean"], rows))


def _modules(found: TokenShares) -> Html:
    """The mean over all tokens of every module."""
    rows = [[module, percent(sum(row) / len(row))] for module, row in found.by_module.items()]
    return folded("Module by module, %", table(["module", "mean over the tokens"], rows))
