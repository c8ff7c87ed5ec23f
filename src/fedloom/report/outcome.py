"""What came out of a run: held-out results, and a question before and after."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.charts import dots
from fedloom.report.document import Figures
from fedloom.report.markup import FEW_ROWS, Html, element, join, section, table
from fedloom.report.results import POOLED, gains, incomplete, result_rows
from fedloom.report.values import Answer, RunSummary, Stage


def results(summary: RunSummary, figures: Figures) -> Html:
    """Held-out loss and score of base, alone and federated, by client; nothing before the first measurement."""
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
    losses = {name: _losses(stage) for name, stage in summary.stages.items()}
    chart = figures.add(
        "chart-results",
        "Held-out loss by client",
        dots([row.label for row in rows], losses, "loss"),
        numbers,
        says=f"Loss on rows that nobody trained on, in nats per {summary.loss_per}; further left is better.",
        unfolded=len(rows) <= FEW_ROWS,
    )
    return section("Result", *(element("p", line, class_="soft") for line in _result_remarks(summary)), chart)


def _result_remarks(summary: RunSummary) -> Iterator[str]:
    if "alone" in summary.stages and "federated" in summary.stages:
        yield "Bold with a star: the better of alone (this client's rows only, same steps) and federated."
    if summary.federated_round is not None and summary.finished is None:
        yield f"The run has not finished: federated is the model after round {summary.federated_round}."
    if summary.whose_model and "federated" in summary.stages:
        yield f"{summary.whose_model[0].upper()}{summary.whose_model[1:]}."
    if summary.personal:
        yield from gains(summary)
    for line in incomplete(summary):
        yield f"Not measured by all, {line}."


def _losses(stage: Stage) -> dict[str, float | None]:
    together = stage.pooled
    each = {name: scores.loss for name, scores in stage.clients.items()}
    return {**each, POOLED: None if together is None else together.loss}


def questions(summary: RunSummary) -> Html:
    """Each question with the answer of the base and of the federated model (of one client, where each has its own)."""
    if not summary.answers:
        return Html()
    return section("Before and after", *(_answer(answer) for answer in summary.answers))


def _answer(answer: Answer) -> Html:
    said = [("base model", answer.before), (f"federated model{answer.whose}", answer.after)]
    cards = [
        element("div", element("h4", label), text.strip() or "(an empty answer)", class_="answer")
        for label, text in said
        if text is not None
    ]
    return join((element("h3", answer.question), element("div", *cards, class_="answers")))
