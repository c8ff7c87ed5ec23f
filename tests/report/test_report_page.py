"""The HTML pages: complete, safe, self-contained, and the same each time."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from fedloom.errors import FedLoomError
from fedloom.report import document
from fedloom.report.charts import bars, dots, lines
from fedloom.report.compare import comparison_page
from fedloom.report.markup import element
from fedloom.report.page import page
from fedloom.report.style import ACCENT, DARK, DARK_INKS, LIGHT, LIGHT_INKS, NEUTRAL, SERIES, WARM
from fedloom.report.summary import summarise

EVIL = "</script><img src=x onerror=alert(1)> & <b>'\""


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, the text, and the figures."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.figures, self._inside = [], [], {}, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs).get("id"))

    def handle_endtag(self, _tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == ("script", "figures"):
            self.figures = json.loads(data)
        elif self._inside is None or self._inside[0] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(self.text)


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch):
    """The chart library is 5 MB; one test looks at the real one."""
    monkeypatch.setattr(document, "_plotly", lambda: "/* plotly.js */")


@pytest.fixture
def run(experiment, journal):
    return summarise(experiment, journal)


def test_the_page_says_what_the_summary_says(run):
    words = Reader(page(run)).words
    for part in ("trial", "tiny (generation, float32)", "method loom", "2 clients", "2 of 2 rounds", "finished",
                 "2.500", "base 3.500 (−1.000)", "36.0 kB", "1 min 15 s", "1.50 GB", "What is up?", "The sky.", "0.25",
                 "modules with factors", "training.local_steps", "clients.north.rank"):  # fmt: skip
        assert part in words, part


def test_every_chart_has_a_title_and_its_numbers_behind_it(run):
    html = page(run)
    figures = re.findall(r"<figure>(.*?)</figure>", html, flags=re.S)
    assert len(figures) == len(Reader(html).figures) == 7
    assert all("<h4 id=" in figure and "<details" in figure and "<table>" in figure for figure in figures)


def test_charts_have_fixed_ids_and_the_page_is_the_same_each_time(run):
    html = page(run)
    found = Reader(html)
    ids = [attributes["id"] for tag, attributes in found.tags if attributes.get("class") == "chart"]
    names = ("gain", "further", "results", "loss", "training", "bytes", "time")
    assert ids == list(found.figures) == [f"chart-{name}" for name in names]
    assert page(run) == html


def test_nothing_is_fetched(run):
    tags = Reader(page(run)).tags
    assert not {tag for tag, _ in tags} & {"link", "img", "iframe", "object", "embed", "base", "form", "video", "audio"}
    assert not [attributes for _, attributes in tags if {"src", "srcset", "action"} & set(attributes)]
    ids, targets = ([found[name] for _, found in tags if name in found] for name in ("id", "href"))
    assert set(targets) <= {f"#{one}" for one in ids}
    assert len(ids) == len(set(ids))  # the script looks its figures up by id
    policy = next(attributes["content"] for _, attributes in tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_the_chart_library_is_in_the_file(run, monkeypatch):
    monkeypatch.undo()
    html = page(run)
    assert 4_000_000 < len(html) < 8_000_000
    assert len(re.findall("</script>", html)) == 3


def test_without_plotly_the_error_says_what_to_install(run, monkeypatch):
    monkeypatch.undo()

    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(document.resources, "files", absent)
    with pytest.raises(FedLoomError, match=r"pip install 'fedloom\[report\]'"):
        page(run)


def test_whatever_a_client_sends_stays_text(experiment, journal):
    for record in journal:
        for key in ("question", "text", "base", "digest"):
            if key in record:
                record[key] = EVIL
        if record.get("client") == "south":
            record["client"] = EVIL
    journal.add("refused", round=1, client=EVIL, module=EVIL, reason=EVIL)
    journal.add(EVIL)
    summary = summarise(experiment, journal)
    for html in (page(summary), comparison_page(EVIL, {EVIL: summary, "b": summary}, {EVIL: EVIL})):
        found = Reader(html)
        assert EVIL in found.words
        assert {tag for tag, _ in found.tags} & {"img", "b"} <= {"b"}
        assert "onerror" not in {name for _, attributes in found.tags for name in attributes}
        shown = json.dumps(found.figures)
        assert "&lt;/script&gt;&lt;img" in shown
        assert "<img" not in shown


def test_every_beginning_of_a_journal_has_a_page(experiment, journal):
    for length in range(0, len(journal), 3):
        assert "not finished" in page(summarise(experiment, journal[:length]))


def test_parts_that_were_not_measured_are_left_out(experiment):
    found = Reader(page(summarise(experiment, [])))
    assert found.figures == {}
    for heading in ("Result", "Before and after", "Round by round", "Rounds"):
        assert heading not in found.text


def test_what_went_wrong_is_told(experiment, journal):
    journal.add("refused", round=1, client="south", module="q_proj", reason="12 values are not finite")
    journal.add("weather")
    words = Reader(page(summarise(experiment, journal))).words
    assert "contribution refused" in words
    assert "12 values are not finite" in words
    assert "weather (1)" in words


def test_a_diverged_loss_is_named_in_the_table_and_a_gap_in_the_chart(experiment, journal):
    journal.add(
        "evaluation", stage="round", round=2, client="north", not_finite={"loss": "nan"}, label_tokens=1, rows=1
    )
    found = Reader(page(summarise(experiment, journal)))
    assert "nan" in found.text
    north = next(line for line in found.figures["chart-loss"]["data"] if line["name"] == "north")
    assert north["y"] == [3.0, 2.5, None]


def test_comparison_has_one_table_one_chart_and_the_notes(run):
    found = Reader(comparison_page("three methods", {"fedit": run, "loom": run}, {"fedit": "rank 4 for all"}))
    assert [line["name"] for line in found.figures["chart-loss"]["data"]] == ["fedit", "loom"]
    assert [line["y"] for line in found.figures["chart-loss"]["data"]] == [[3.5, 3.0, 2.5]] * 2
    assert "rank 4 for all" in found.words
    assert sum(tag == "table" for tag, _ in found.tags) == 2


def test_comparison_of_runs_that_have_not_measured_yet(experiment):
    found = Reader(comparison_page("early", {"loom": summarise(experiment, [])}))
    assert found.figures == {}
    assert "1 run" in found.words


MANY = {f"site-{number}": {0: 3.0, 1: number / 10} for number in range(10)}


@pytest.mark.parametrize(
    "figure",
    [
        lines(MANY | {"all": {0: 3.0, 1: 2.0}}, "loss", strong="all"),
        lines(dict(list(MANY.items())[:3]), "loss"),
        lines(MANY, "loss", apart=10),
        dots(["a", "b"], {"base": {"a": 1.0, "b": 2.0}, "alone": {"a": None}, "federated": {}}, "loss"),
        bars(["a"], {"up": {"a": 3.0}, "down": {"a": 2.0}}, str),
        bars(["a"], {"time": {"a": 0.0}}, str),
    ],
)
def test_plotly_accepts_the_figures(figure):
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly is an extra")
    assert len(graph_objects.Figure(figure).data) == len(figure["data"])


@pytest.mark.parametrize(("mark", "name"), [("highest", "site-9 (highest)"), ("lowest", "site-0 (lowest)")])
def test_of_many_lines_only_the_extreme_and_all_together_are_named(mark, name):
    figure = lines(MANY | {"all": {0: 3.0, 1: 2.0}}, "loss", strong="all", mark=mark)
    assert [line["name"] for line in figure["data"] if line["showlegend"]] == ["each client", name, "all"]


def test_each_of_a_few_lines_looks_different_without_colour():
    figure = lines(dict(list(MANY.items())[:6]), "loss")
    assert len({(line["line"]["dash"], line["marker"]["symbol"]) for line in figure["data"]}) == 6


def test_rows_of_long_names_stay_apart():
    figure = dots(["hospital-of-the-north-1", "hospital-of-the-north-2"], {"base": {}}, "loss")
    axis = figure["layout"]["yaxis"]
    assert axis["ticktext"] == ["hospital-of-the-n…"] * 2
    assert axis["tickvals"] == [0, 1]


@pytest.mark.parametrize("background", [LIGHT, DARK])
@pytest.mark.parametrize("colour", sorted({*SERIES, ACCENT, WARM, NEUTRAL}))
def test_lines_can_be_told_from_the_background(colour, background):
    bright, dim = sorted(map(_luminance, (colour, background)), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 3


@pytest.mark.parametrize("inks", [LIGHT_INKS, DARK_INKS])
@pytest.mark.parametrize("ink", ["ink", "soft", "accent"])
@pytest.mark.parametrize("under", ["paper", "card"])
def test_text_can_be_read(ink, under, inks):
    bright, dim = sorted(map(_luminance, (inks[ink], inks[under])), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_every_chart_is_named_described_and_reached_by_the_keyboard(run):
    tags = Reader(page(run)).tags
    ids = {found["id"] for _, found in tags if "id" in found}
    charts = [found for _, found in tags if found.get("class") == "chart"]
    assert {(found["role"], found["tabindex"]) for found in charts} == {("img", "0")}
    assert {found[key] for found in charts for key in ("aria-labelledby", "aria-describedby")} <= ids
    assert page(run).count('<figcaption id="chart-') == len(charts)


def test_headings_go_down_step_by_step(run):
    levels = [int(tag[1]) for tag, _ in Reader(page(run)).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def _luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_markup_escapes_text_and_attributes_but_not_markup():
    inner = element("b", "<i>")
    assert element("p", inner, " & ", 3, title='"x"') == '<p title="&quot;x&quot;"><b>&lt;i&gt;</b> &amp; 3</p>'
