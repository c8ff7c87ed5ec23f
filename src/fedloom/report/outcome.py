"""What came out of a run: held-out results, and a question before and after."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.charts import dots
from fedloom.report.document import Figures
from fedloom.report.markup import FEW_ROWS, Html, element, join, section, table
from fedloom.report.results import POOLED, incomplete, result_rows
from fedloom.report.values import Answer, RunSummary


def results(summary: RunSummary, figures: Figures) -> Html:
    rows = result_rows(summary)
    if not rows:
        return Html()
    stages, scored = list(summary.stages), summary.has_score()
    headings = ["client", *(f"loss {stage}" for stage in stages)]
    headings += [f"{summary.score_label} {stage}" for stage in stages] if scored else []
    numbers = table(
        headings,
        [[row.label, *row.loss.values(), *(row.score.values() if scored else ())] for row in rows],
        total=rows[-1].pooled,
    )
    labels = [row.label for row in rows]
    values = {
        stage: {**{name: scores.loss for name, scores in found.clients.items()}, POOLED: _pooled_loss(summary, stage)}
        for stage, found in summary.stages.items()
    }
    says = "Loss on rows that nobody trained on, in nats per token; further left is better."
    chart = figures.add("chart-results", "Held-out loss by client", dots(labels, values, "loss"), numbers, says=says,
                        unfolded=len(rows) <= FEW_ROWS)  # fmt: skip
    return section("Result", *(element("p", line, class_="soft") for line in _result_remarks(summary)), chart)


def _result_remarks(summary: RunSummary) -> Iterator[str]:
    if "alone" in summary.stages and "federated" in summary.stages:
        yield "Bold with a star: the better of alone (this client's rows only, same steps) and federated."
    if summary.federated_round is not None and summary.finished is None:
        yield f"The run has not finished: federated is the model after round {summary.federated_round}."
    for line in incomplete(summary):
        yield f"Not measured by all, {line}."


def _pooled_loss(summary: RunSummary, stage: str) -> float | None:
    together = summary.stages[stage].pooled
    return None if together is None else together.loss


def questions(summary: RunSummary) -> Html:
    if not summary.answers:
        return Html()
    return section("Before and after", *(_answer(answer) for answer in summary.answers))


def _answer(answer: Answer) -> Html:
    said = [("base model", answer.before), ("federated model", answer.after)]
    cards = [
        element("div", element("h4", label), text.strip() or "(an empty answer)", class_="answer")
        for label, text in said
        if text is not None
    ]
    return join((element("h3", answer.question), element("div", *cards, class_="answers")))
