"""Tables of several models by client."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from fedloom.evaluation.scores import Scores
from fedloom.report.per_client import borrowed_words, per_client_tables, per_client_words


def render(table):
    console = Console(width=100, record=True, color_system=None, file=StringIO())
    console.print(table)
    return console.export_text()


def found(**losses):
    return {
        label: {f"site-{number}": Scores(loss, 10, 5, rougeL=1 / (1 + loss)) for number, loss in enumerate(values)}
        for label, values in losses.items()
    }


def test_means_and_spreads_are_over_clients_and_the_best_of_a_row_has_a_star():
    tables = list(per_client_tables(found(alone=[1.0, 3.0], fedalt=[2.0, 1.0])))
    text = render(tables[0])
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip() and "─" not in line}
    assert lines["site-0"] == ["1.000*", "2.000"]
    assert lines["site-1"] == ["3.000", "1.000*"]
    assert lines["mean"] == ["2.000", "1.500*"]
    assert lines["spread"] == ["1.414", "0.707"]
    assert "ROUGE-L" in render(tables[1])
    assert len(tables) == 2, "scores that were not measured have no table"


def test_clients_that_gain_nothing_are_named():
    words = per_client_words(found(alone=[1.0, 3.0, 2.0], loom=[3.0, 3.0, 3.0], fedalt=[2.0, 1.0, 2.0]))
    assert words == [
        "fedalt is better than training alone for 1 of 3 clients; not better: site-0, site-2.",
        "fedalt is better than the model of loom for 3 of 3 clients.",
    ]


@pytest.mark.parametrize("difference", [0.0, 1e-5])
def test_what_is_shown_as_equal_is_no_gain(difference):
    assert "0 of 1" in per_client_words(found(alone=[1.0], fedalt=[1.0 - difference]))[0]


def test_how_much_each_client_borrows_is_said_where_they_choose():
    assert borrowed_words({}) == []
    assert borrowed_words({"north": 0.0, "south": 0.3})[0].endswith("borrows: north 0%, south 30%.")
