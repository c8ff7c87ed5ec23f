"""Who resembles whom and who borrows from whom, as the page says it."""

import json

import pytest

from fedloom.aggregation.similarity import Merge
from fedloom.report import document
from fedloom.report.document import Figures
from fedloom.report.heat import NAMED, heat_map
from fedloom.report.page import page
from fedloom.report.results import gains
from fedloom.report.similarity import DRAWN, borrowing, latest_similarity, share_table, similarity_section
from fedloom.report.summary import summarise
from fedloom.report.values import Similarity

CLIENTS = ["north", "south", "east"]
COSINES = [[1.0, 0.1, 0.8], [0.1, 1.0, -0.25], [0.8, -0.25, 1.0]]
SHARES = [[0.0, 0.2, 0.8], [0.45, 0.0, 0.55], [1.125, -0.125, 0.0]]


def record(round=3, clients=CLIENTS, cosines=COSINES, shares=SHARES, **changes):
    fields = {"round": round, "clients": clients, "cosines": cosines, "shares": shares, "weights": [1.0] * len(clients)}
    return {"kind": "similarity", **fields, **changes}


def of_many(count):
    names = [f"site-{number:03d}" for number in range(count)]
    cosines = [[1.0 if a == b else 1 / (1 + abs(a - b)) for b in range(count)] for a in range(count)]
    shares = [[0.0 if a == b else 1 / (count - 1) for b in range(count)] for a in range(count)]
    return record(clients=names, cosines=cosines, shares=shares)


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch):
    monkeypatch.setattr(document, "_plotly", lambda: "/* plotly.js */")


def summary_with(experiment, journal, *records):
    for one in records:
        journal.add(**one)
    return summarise(experiment, journal)


def test_the_last_whole_record_counts():
    assert latest_similarity([]) is None
    found = latest_similarity([record(1), record(2, weights=[2, 3, 4])])
    cosines, shares = tuple(map(tuple, COSINES)), tuple(map(tuple, SHARES))
    assert found == Similarity(2, tuple(CLIENTS), cosines, shares, (2, 3, 4))


BROKEN = [
    record(2, cosines=COSINES[:2]),
    record(2, shares=[row[:2] for row in SHARES]),
    record(2, weights=[1.0]),
    record(2, clients=["a", "a", "b"]),
    record(2, clients=[], cosines=[], shares=[], weights=[]),
    record(2, cosines=[[1.0, None, 0.0]] * 3),
    record(2, cosines=[[1.0, float("nan"), 0.0]] * 3),
    {"kind": "similarity", "round": 2},
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_record_that_lacks_numbers_is_counted_and_not_drawn(experiment, journal, broken):
    summary = summary_with(experiment, journal, record(1), broken)
    assert summary.similarity.round == 1
    assert summary.unknown == {"similarity without a number for every two clients": 1}


def test_the_page_has_the_section_only_where_it_was_measured(experiment, journal):
    assert "Who resembles whom" not in page(summarise(experiment, journal))
    html = page(summary_with(experiment, journal, record()))
    for part in ("Who resembles whom", 'id="chart-similarity"', "After round 3", "Who weighs how much"):
        assert part in html


def test_rows_are_in_the_order_of_the_tree_that_is_drawn_beside_them(experiment, journal):
    figures = Figures()
    html = similarity_section(summary_with(experiment, journal, record()), figures)
    cells, tree = figures.by_id["chart-similarity"]["data"]
    assert figures.by_id["chart-similarity"]["layout"]["yaxis"]["ticktext"] == ["north", "east", "south"]
    assert cells["z"] == [[1.0, 0.8, 0.1], [0.8, 1.0, -0.25], [0.1, -0.25, 1.0]]
    assert cells["customdata"][0][2] == "north, south"
    near, far = 1 - 0.8, 1 - (0.1 - 0.25) / 2
    assert tree["x"] == pytest.approx([0, near, near, 0, None, near, far, far, 0, None])
    assert tree["y"] == [0, 0, 1, 1, None, 0.5, 0.5, 2, 2, None]
    for behind in ('<td class="figure">0.80</td>', '<td class="figure">−0.25</td>', "north, east", "mean cosine"):
        assert behind in html


def test_shares_are_in_percent_and_a_rest_that_is_none_is_a_dash():
    table = share_table(latest_similarity([record()]))
    for cell in (">80%<", ">45%<", ">112%<", ">−12%<", ">–<"):
        assert cell in table
    none = share_table(latest_similarity([record(shares=[[0.0] * 3, *SHARES[1:]])]))
    assert none.count(">–<") == 5


def test_the_sentences_name_who_borrows_from_whom():
    said = list(borrowing(latest_similarity([record()])))
    assert said == [
        "Borrows mostly from one other: north from east (80%), south from east (55%) and east from north (112%)."
    ]
    shares = [[0.0, 0.4, 0.35, 0.25], [0.9, 0, 0.1, 0], [0.0] * 4, [0.3, 0.3, 0.4, 0]]
    square = [[1.0] * 4] * 4
    said = list(borrowing(latest_similarity([record(clients=list("abcd"), cosines=square, shares=shares)])))
    assert said == [
        "Borrows mostly from one other: b from a (90%).",
        "No other makes up half of the rest of the world of a and d.",
        "The others left nothing to borrow for c: there is none, or they cancel out.",
    ]
    assert "site-007 and 12 more" in next(borrowing(latest_similarity([of_many(20)])))


@pytest.mark.parametrize("count", [1, 2, 20, NAMED + 1, DRAWN + 1])
def test_any_number_of_clients_has_tables_and_a_chart_while_it_can_be_seen(experiment, journal, count):
    figures = Figures()
    html = similarity_section(summary_with(experiment, journal, of_many(count)), figures)
    assert html.count("<table") >= 2
    assert bool(figures.by_id) == (count <= DRAWN)
    assert html.count("<td") < 12 * 12 * 3 + 10 * count
    if count == 20:
        assert "most like" in html
    for figure in figures.by_id.values():
        assert figure["layout"]["yaxis"].get("showticklabels", True) == (count <= NAMED)
        graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly is an extra")
        assert len(graph_objects.Figure(figure).data) == (2 if count > 1 else 1)


def test_names_stay_text():
    evil = "<img src=x>"
    figure = heat_map([evil, "b"], [[1.0, 0.5], [0.5, 1.0]], [Merge((evil,), ("b",), 0.5)])
    assert "<img" not in json.dumps(figure)


def alone(journal, **losses):
    for name, loss in losses.items():
        journal.add("evaluation", stage="alone", round=3, client=name, loss=loss, label_tokens=100, rows=10)


def personal(experiment, journal, **losses):
    journal[0]["personal"] = True
    alone(journal, **losses)
    return summarise(experiment, journal)


def test_who_is_not_better_than_alone_is_named_where_models_are_personal(experiment, journal):
    """After round 2 the losses of north and south are 2.0 and 3.0."""
    told = "Not better than alone, by the loss of its own model: south (3.000, alone 3.000)."
    alone(journal, north=2.1, south=3.0004)
    assert told not in page(summarise(experiment, journal))
    summary = personal(experiment, journal)
    assert list(gains(summary)) == [told]
    assert told in page(summary)


def test_it_is_said_that_all_are_better_and_nothing_before_both_were_measured(experiment, journal):
    assert "Every client that measured both (2) is better than alone" in page(personal(experiment, journal, south=3.1))
    assert list(gains(summarise(experiment, [one for one in journal if one.get("stage") != "alone"]))) == []
