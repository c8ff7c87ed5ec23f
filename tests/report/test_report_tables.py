"""Tables on the terminal."""

from io import StringIO

import pytest
from rich.console import Console

from fedloom.report.page import page
from fedloom.report.summary import summarise
from fedloom.report.tables import client_table, closing, comparison_table, result_table, scores_table


def _text(renderable, width=100):
    console = Console(width=width, record=True, color_system=None, file=StringIO())
    console.print(renderable)
    return console.export_text()


def _cells(text, first):
    """The cells of the line that begins with this word."""
    return next(line.split() for line in text.splitlines() if line.strip().startswith(first))


def test_results_by_client_and_pooled_with_the_better_one_marked(experiment, journal):
    text = _text(result_table(summarise(experiment, journal)))
    assert _cells(text, "north") == ["north", "3.000", "2.200", "2.000*", "0.0", "20.0", "30.0*"]
    assert _cells(text, "all clients") == ["all", "clients", "3.500", "2.700", "2.500*", "0.0", "20.0", "30.0*"]
    assert "ROUGE-1" in text


def test_the_better_one_may_be_alone(experiment, journal):
    journal.add("evaluation", stage="alone", client="south", loss=0.5, label_tokens=100, rows=10)
    table = result_table(summarise(experiment, journal))
    assert _cells(_text(table), "south")[1:4] == ["4.000", "0.500*", "3.000"]
    styles = [str(cell.style) for cell in table.columns[2].cells]
    assert styles[:2] == ["", "bold"]


def test_what_was_not_measured_has_no_column(experiment, journal):
    records = [record for record in journal if record.get("stage") != "alone"]
    for record in records:
        record.pop("rouge1", None)
    text = _text(result_table(summarise(experiment, records)))
    assert "alone" not in text
    assert "ROUGE" not in text
    assert _cells(text, "north") == ["north", "3.000", "2.000"]


def test_classification_shows_accuracy(experiment, journal):
    for record in journal:
        if record["kind"] == "run_started":
            record["task"] = "classification"
        if record["kind"] == "evaluation":
            record["accuracy"] = 0.875
    text = _text(result_table(summarise(experiment, journal)))
    assert "Accuracy" in text
    assert "87.5" in text
    assert "ROUGE" not in text


def test_images_are_called_images(experiment, journal):
    for record in journal:
        if record["kind"] == "run_started":
            record["task"] = "image-classification"
        if record["kind"] == "evaluation":
            record["accuracy"] = 0.875
        if record["kind"] == "contribution":
            record["images"] = record.pop("tokens")
    summary = summarise(experiment, journal)
    text = _text(result_table(summary))
    assert "Held-out images" in text
    assert "Accuracy" in text
    html = page(summary)
    assert "images/s" in html
    assert "in nats per image" in html
    assert "tokens/s" not in html
    assert summary.clients[0].per_second == 200.0


def test_only_the_hardest_clients_are_shown_when_asked_and_the_caption_says_so(experiment, journal):
    text = _text(result_table(summarise(experiment, journal), limit=1))
    assert "south" in text
    assert "north" not in text
    assert "1 other not shown" in text


def test_a_stage_that_not_all_measured_is_named(experiment, journal):
    records = [r for r in journal if not (r.get("stage") == "alone" and r.get("client") == "north")]
    assert "alone: 1 of 2 clients" in _text(result_table(summarise(experiment, records)))


def test_client_table_has_ranks_and_total_bytes(experiment, journal):
    text = _text(client_table(summarise(experiment, journal)))
    assert _cells(text, "north") == ["north", "8", "90", "8.00", "kB", "16.0", "kB", "4.0", "s"]
    assert _cells(text, "all clients") == ["all", "clients", "12.0", "kB", "24.0", "kB"]
    assert "dropped" not in text


def test_trouble_gets_a_column(experiment, journal):
    journal.add("refused", round=1, client="south", module=None, reason="not finite")
    text = _text(client_table(summarise(experiment, journal)))
    assert _cells(text, "south")[-3:] == ["1", "/", "0"]


@pytest.mark.parametrize("width", [80, 100])
def test_closing_fits_and_shows_everything(experiment, journal, width):
    text = _text(closing(summarise(experiment, journal)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for part in ("What is up?", "No idea.", "The sky.", "peak memory 1.50 GB", "time 1 min 15 s", "rounds 2 of 2"):
        assert part in text


def test_closing_of_a_run_that_measured_nothing(experiment):
    text = _text(closing(summarise(experiment, [])))
    assert "rounds 0 of 2" in text
    assert "Held-out" not in text


def test_answers_are_text_and_not_markup(experiment, journal):
    journal.add("answer", stage="final", question="What is up?", text="[bold]x[/bold] [red]")
    assert "[bold]x[/bold] [red]" in _text(closing(summarise(experiment, journal)))


def test_comparison_marks_the_best_of_each_column(experiment, journal):
    better = [record | {"loss": 1.0} if record.get("stage") == "final" else record for record in journal]
    runs = {"fedit": summarise(experiment, journal), "flora": summarise(experiment, better)}
    text = _text(comparison_table(runs, {"fedit": "rank 4 for all"}))
    assert _cells(text, "fedit")[:4] == ["fedit", "loom", "2.500", "3.000"]
    assert _cells(text, "flora")[:3] == ["flora", "loom", "1.000*"]
    assert "fedit: rank 4 for all" in text
    assert "also differ" not in text
    assert "method" in text


def test_comparison_labelled_by_method_has_no_column_of_methods(experiment, journal):
    text = _text(comparison_table({"loom": summarise(experiment, journal)}))
    assert _cells(text, "loom")[:2] == ["loom", "2.500"]
    assert "method" not in text


def test_comparison_says_what_else_differs(experiment, journal):
    other = [record | {"base_digest": "00"} if record["kind"] == "run_started" else record for record in journal]
    runs = {"a": summarise(experiment, journal), "b": summarise(experiment.model_copy(update={"seed": 8}), other)}
    assert "also differ in: base model, seed" in _text(comparison_table(runs))


def test_scores_of_one_model(experiment):
    metrics = {"north": {"loss": 1.0, "label_tokens": 30.0, "rows": 3.0, "rougeL": 0.5},
               "south": {"loss": 2.0, "label_tokens": 10.0, "rows": 1.0, "rougeL": 0.1}}  # fmt: skip
    text = _text(scores_table(metrics))
    assert _cells(text, "north") == ["north", "3", "1.000", "50.0"]
    assert _cells(text, "all clients") == ["all", "clients", "4", "1.250", "40.0"]
    assert "ROUGE-L" in text
    assert "ROUGE-1" not in text
