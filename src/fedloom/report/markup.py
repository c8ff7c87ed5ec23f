"""HTML by plain functions. Text is escaped unless it is Html already, so that no caller can forget it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from fedloom.report.lang.language import Language
from fedloom.report.results import Cell

FEW_ROWS = 10  # a table of more is folded until somebody opens it
_VOID = frozenset({"meta", "br"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: str | None) -> Html:
    """One element: element("td", "a < b", class_="figure"). None children and attributes are left out.

    An underscore at the end of an attribute's name falls away, others become dashes.
    """
    marks = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{marks}>" if tag in _VOID else f"<{tag}{marks}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Children one after another, escaped unless they are Html."""
    return Html("".join(c if isinstance(c, Html) else escape(str(c)) for c in children if c is not None))


def table(headings: Sequence[object], rows: Iterable[Sequence[object]], *, texts: int = 1, total: bool = False) -> Html:
    """A table in a box that scrolls sideways on narrow screens.

    texts: number of leading columns that hold text; the others hold figures.  total: the last row sums up the others.
    """
    classes = [None if column < texts else "figure" for column in range(len(headings))]
    head = element(
        "tr", *(element("th", name, class_=kind, scope="col") for name, kind in zip(headings, classes, strict=True))
    )
    lines = [
        join(
            _cell(value, kind, header=not column) for column, (value, kind) in enumerate(zip(row, classes, strict=True))
        )
        for row in rows
    ]
    last = len(lines) - 1 if total else None
    body = [element("tr", line, class_="total" if number == last else None) for number, line in enumerate(lines)]
    content = element("table", element("thead", head), element("tbody", *body))
    return element("div", content, class_="scroll", tabindex="0")


def sentence(say: Language, key: str, **values: object) -> Html:
    """A sentence of the catalogue in which a value may be markup, such as a quotation."""
    return Html(escape(say.messages[key]).format(**{name: join([value]) for name, value in values.items()}))


def quoted(text: str, tag: str = "q") -> Html:
    """What a journal says, as it stands there: in English, whatever the language of the page."""
    return element(tag, text, lang="en")


def code(text: object) -> Html:
    """A name, a digest, a setting: the same in every language."""
    return element("code", text, translate="no")


def deeper(content: Html) -> Html:
    """Content whose headings stand one level lower. Only markup has tags: text is escaped."""
    return Html(re.sub(r"(</?h)([2-5])(?=[ >])", lambda found: f"{found[1]}{int(found[2]) + 1}", content))


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """A list of names and values; values that are None are left out."""
    listed = [join((element("dt", name), element("dd", value))) for name, value in pairs if value is not None]
    return element("dl", *listed, class_="facts")


def folded(title: str, content: Html, *, unfolded: bool = False) -> Html:
    """Content behind a line that opens it."""
    inner = join((element("summary", title), content))
    return Html(f"<details open>{inner}</details>") if unfolded else element("details", inner)


def section(title: str, *children: object) -> Html:
    """A heading and what belongs to it."""
    return element("section", element("h2", title), *children)


def _cell(value: object, kind: str | None, *, header: bool) -> Html:
    if isinstance(value, Cell):
        value = element("strong", value.text, element("span", "*", class_="star")) if value.better else value.text
    return element("th", value, scope="row") if header else element("td", value, class_=kind)
