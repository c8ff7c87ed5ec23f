"""The catalogues say the same things, all of them and no more, and a Japanese page is Japanese."""

import ast
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

import fedloom.report
from fedloom.cli.report import Lang
from fedloom.report import document
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.japanese import JAPANESE
from fedloom.report.lang.languages import LANGUAGES
from fedloom.report.page import page
from fedloom.report.summary import summarise
from fedloom.report.values import Release, SumRelease
from fedloom.spec.prices import Prices

# Names, and what is the same in both languages.
NAMES = {
    "north",
    "south",
    "tiny",
    "loom",
    "float",
    "FedLoom",
    "trial",
    "ROUGE",
    "JavaScript",
    "rdp",
    "pld",
    "smollm",
    "instruct",
}
PRICES = Prices(currency="JPY", watts_per_client=300, per_kwh=30)


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch):
    monkeypatch.setattr(document, "_plotly", lambda: "")


def placeholders(sentence):
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def test_all_languages_have_the_same_keys_with_the_same_placeholders():
    assert set(LANGUAGES) == {one.value for one in Lang}
    shapes = {code: {key: placeholders(text) for key, text in one.messages.items()} for code, one in LANGUAGES.items()}
    assert shapes["ja"] == shapes["en"]
    assert all(text.strip() for one in LANGUAGES.values() for text in one.messages.values())


def literals():
    """Every text in the code of reports but the catalogues; of one with values in it, the part before the first."""
    for path in Path(fedloom.report.__file__).parent.rglob("*.py"):
        if path.parent.name != "lang":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_no_sentence_is_left_that_nobody_says():
    said = set(literals())
    begun = ("event.", "stage.", "task.", "score.", "per.", "unit.", "spent.", "further.", "chart.")  # and a value
    plain = {re.sub(r"\.(one|other)$", "", key) for key in ENGLISH.messages}
    assert {key for key in plain - said if not key.startswith(begun)} == set()


def test_a_key_or_placeholder_that_is_missing_is_an_error():
    for wrong in (lambda: ENGLISH("nothing"), lambda: ENGLISH("header.method")):
        with pytest.raises(KeyError):
            wrong()
    assert not JAPANESE.has("nothing")


class Seen(HTMLParser):
    """Texts that a reader sees, without code and what is marked as being in another language."""

    VOID = ("meta", "br")

    def __init__(self, html):
        super().__init__()
        self.texts, self._open, self.tags = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        other = tag in ("code", "script", "style") or (tag != "html" and "lang" in found)
        if tag not in self.VOID:
            self._open.append(other)

    def handle_endtag(self, _tag):
        self._open.pop()

    def handle_data(self, data):
        if not any(self._open):
            self.texts.append(data)


def everything(experiment, journal):
    """A summary in which every section has something to say."""
    journal.add("refused", round=1, client="south", module="q_proj", reason="twelve values are not finite")
    journal.add("gate", round=2, decision="reject", reasons=["the loss rose", "the worst client lost"])
    journal.add("weather", round=2, wind="from the west")
    journal.add("evaluation", stage="alone", round=2, client="south", loss=0.5, label_tokens=100, rows=10)
    clients, square = ["north", "south"], [[1.0, 0.5], [0.5, 1.0]]
    journal.add("similarity", round=2, clients=clients, cosines=square, shares=[[0, 1.0], [1.0, 0]], weights=[1, 1])
    summary = summarise(experiment, journal)
    settings = {**summary.settings, "privacy": {"accountant": "pld", "canaries": 4}}
    return replace(summary, settings=settings, releases=(Release("north", 1, 2.0, 1e-5, 1.1, 0.25),))


def words_of(texts):
    return {word for text in texts for word in re.findall(r"[A-Za-z]{3,}", text)} - NAMES


def variants(summary):
    """Noise at clients and at the server, measured or not, finished or not, personal or not."""
    yield summary
    yield replace(summary, releases=(), sums=(SumRelease(1, 1.1, 0.5, 2.0, 1e-5),), finished=None)
    yield replace(summary, releases=(), personal=True, events=(), rounds=())


@pytest.mark.parametrize("prices", [None, PRICES])
def test_no_english_is_left_on_a_japanese_page(experiment, journal, prices):
    for summary in (*variants(everything(experiment, journal)), summarise(experiment, [])):
        seen = Seen(page(summary, JAPANESE, prices))
        assert words_of(seen.texts) == set()
        assert next(found for tag, found in seen.tags if tag == "html")["lang"] == "ja"


def test_the_check_would_find_english(experiment, journal):
    assert {"Cost", "loss", "clients"} <= words_of(Seen(page(everything(experiment, journal))).texts)


def test_no_english_is_left_in_japanese_charts(experiment, journal):
    html = page(everything(experiment, journal), JAPANESE)
    drawn = re.search(r'id="figures">(.*?)</script>', html, flags=re.S)[1]
    shown = re.findall(r'"(?:name|text|hovertemplate)":("[^"]*"|\[[^\]]*\])', drawn)
    assert shown
    plain = [re.sub(r"%\{[^}]*\}|<[^>]*>|\\u003c.*?\\u003e|\\u[0-9a-f]{4}", "", text) for text in shown]
    assert words_of(plain) <= {"extra"}


def test_reasons_of_the_journal_are_quoted_and_marked_as_english(experiment, journal):
    html = page(everything(experiment, journal), JAPANESE)
    assert '<span lang="en">twelve values are not finite</span>' in html
    assert '<span lang="en">the loss rose; the worst client lost</span>' in html
    assert "Noto Sans CJK JP" in html


@pytest.mark.parametrize(
    ("shown", "english", "japanese"),
    [
        (lambda say: say.seconds(187), "3 min 07 s", "3 分 07 秒"),
        (lambda say: say.hours(4500), "1.25 h", "1.25 時間"),
        (lambda say: say.hours(30), "30.0 s", "30.0 秒"),
        (
            lambda say: say.date("2026-11-05T10:00:01+00:00"),
            "2026-11-05 10:00 UTC",
            "2026年11月5日 10:00（協定世界時）",
        ),
        (lambda say: say.date("yesterday"), "yesterday", "yesterday"),
        (lambda say: say.money(1234.5, "JPY"), "JPY 1,234", "1,234 円"),
        (lambda say: say.money(1234.567, "CHF"), "CHF 1,234.57", "1,234.57 CHF"),
        (lambda say: say.money(0.00123, "EUR"), "EUR 0.0012", "0.0012 ユーロ"),
        (lambda say: say.money(None, "EUR"), "–", "–"),
        (lambda say: say.energy(0.0123), "12.3 Wh", "12.3 Wh"),
        (lambda say: say.energy(1234.5), "1,234 kWh", "1,234 kWh"),
        (lambda say: say.listed(["a", "b", "c"]), "a, b and c", "a、b、c"),
        (lambda say: say.count("count.client", 1), "1 client", "1 クライアント"),
        (lambda say: say.count("count.client", 1200), "1,200 clients", "1,200 クライアント"),
    ],
)
def test_numbers_dates_and_units_are_those_of_the_language(shown, english, japanese):
    assert (shown(ENGLISH), shown(JAPANESE)) == (english, japanese)
