"""What mixers chose, in the terminal and on a page."""

import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from fedloom.evaluation.shares import TokenShares
from fedloom.report.explain import explain_page
from fedloom.report.explain_table import MOST_TOKENS, in_columns, shares_table, short_names
from fedloom.report.shading import shading_of, visible
from fedloom.report.style import ACCENT, WARM


def shares(tokens=("What", " is", "\n", "<b>oak</b>"), blocks=3):
    """The share rises by block and falls by token; q and v lie 10 points apart."""
    by_module = {}
    for block in range(blocks):
        for module, more in (("q_proj", 0.05), ("v_proj", -0.05)):
            row = [0.3 + 0.4 * block / max(blocks - 1, 1) - 0.1 * place / len(tokens) for place in range(len(tokens))]
            by_module[f"model.layers.{block}.{module}"] = tuple(share + more for share in row)
    return TokenShares("pilot", "site-a", "fedalt", 7, tokens, by_module)


def printed(found, width):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(shares_table(found, width))
    return captured.get()


def test_the_table_has_a_row_for_each_token_and_the_mean_of_each_block():
    text = printed(shares(), 80)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert "site-a" in text
    assert "round 7" in text
    assert rows["token"] == ["0", "1", "2", "mean"]
    assert rows["What"] == ["30", "50", "70", "50"]
    assert rows["⏎"] == ["25", "45", "65", "45"]
    assert rows["all"] == ["tokens", "26", "46", "66", "46"]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("blocks", [1, 2, 30, 80, 126])
def test_no_line_is_wider_than_the_terminal(width, blocks):
    tokens = tuple(f"token{'x' * number}" for number in range(MOST_TOKENS + 9))
    text = printed(shares(tokens, blocks), width)
    assert max(map(len, text.splitlines())) <= width
    assert "9 further tokens: in the picture" in text
    assert "tokenxxxxxxx…" in text
    heads = next(line for line in text.splitlines() if line.strip().startswith("token")).split()[1:]
    assert heads[-1] == "mean"
    assert "…" not in "".join(heads)
    assert heads[-2].split("-")[-1] == str(blocks - 1)


def test_neighbours_are_merged_into_their_mean():
    by_block = {f"h.{number}": [float(number)] for number in range(30)}
    found = in_columns(by_block, 60)
    assert next(iter(found)) == "0-2" or next(iter(found)) == "0-3"
    size = int(next(iter(found)).split("-")[1]) + 1
    assert found[next(iter(found))] == [pytest.approx((size - 1) / 2)]
    assert sum(1 for _ in found) == -(-30 // size)
    assert in_columns(by_block, 500) == {str(number): [float(number)] for number in range(30)}


def test_names_of_blocks_stay_apart():
    assert short_names({"h.0": 1, "h.1": 1, "pooler": 1}) == {"h.0": "0", "h.1": "1", "pooler": "pooler"}
    assert short_names({"encoder.0": 1, "decoder.0": 1}) == {"encoder.0": "encoder.0", "decoder.0": "decoder.0"}


def test_colours_say_who_outweighs_whom_and_how_far():
    shading = shading_of([0.3, 0.6])
    assert (shading.colour(0.6), shading.colour(0.3)) == (ACCENT, WARM)
    assert shading.strength(0.5) == 0
    assert shading.strength(0.3) > shading.strength(0.6) > 0
    assert shading.on_white(0.5) == "#ffffff"
    assert shading_of([0.501]).strength(0.501) < 0.05, "a hair's breadth is not drawn in full colour"
    assert shading_of([]).span == shading_of([0.5]).span


def test_blanks_of_tokens_can_be_seen():
    assert visible(" a\tb\n") == "·a⇥b⏎"
    assert visible("") == "∅"
    assert visible("\x1b[31m") == "�[31m"


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_shows_each_cell_and_fetches_nothing():
    found = shares()
    text = explain_page(found)
    page = Page()
    page.feed(text)
    rects = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(rects) == 4 * 3
    assert {one["fill"] for one in rects} == {ACCENT, WARM}
    assert len({one["fill-opacity"] for one in rects}) > 2
    assert "·is, model.layers.2: 68%" in "".join(page.texts)
    assert "<b>oak" not in text
    assert "prefers-color-scheme: dark" in text
    assert "script" not in [tag for tag, _ in page.tags]
    assert not re.search(r'(?:src|href)="', text)
    assert "model.layers.0.q_proj" in text
    assert "Most it has in model.layers.2 (66%), least in model.layers.0 (26%)" in text.replace("&#x27;", "'")


def test_a_long_text_through_many_layers_stays_a_page():
    text = explain_page(shares(tuple("word" for _ in range(300)), 32))
    assert len(text) < 3_000_000
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups())
    assert width < 1000
    assert height == 22 + 18 * 300
