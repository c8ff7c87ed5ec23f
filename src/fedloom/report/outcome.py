"""What came out of a run: held-out results, and a question before and after."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.charts import dots
from fedloom.report.document import Figures
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, element, join, section, table
from fedloom.report.results import gains, incomplete, result_rows
from fedloom.report.values import Answer, RunSummary, Stage


def results(summary: RunSummary, figures: Figures) -> Html:
    """Held-out loss and score of base, alone and federated, by client; nothing before the first measurement."""
    rows, say = result_rows(summary), figures.say
    if not rows:
        return Html()
    scored = summary.has_score()
    stages = {name: say(f"stage.{name}") for name in summary.stages}
    labels = [say("everyone") if row.pooled else row.label for row in rows]
    headings = [say("client"), *(say("result.loss", stage=stage) for stage in stages.values())]
    headings += [f"{say(summary.score_key)} {stage}" for stage in stages.values()] if scored else []
    numbers = table(
        headings,
        [
            [label, *row.loss.values(), *(row.score.values() if scored else ())]
            for label, row in zip(labels, rows, strict=True)
        ],
        total=rows[-1].pooled,
    )
    losses = {name: _losses(stage, say("everyone")) for name, stage in summary.stages.items()}
    chart = figures.add(
        "chart-results",
        say("result.chart"),
        dots(labels, losses, say("loss"), stages.__getitem__),
        numbers,
        says=say("result.chart.says", per=say(f"per.{summary.loss_per}")),
        unfolded=len(rows) <= FEW_ROWS,
    )
    return section(say("result"), *(element("p", line, class_="soft") for line in _result_remarks(summary, say)), chart)


def _result_remarks(summary: RunSummary, say: Language) -> Iterator[str]:
    if "alone" in summary.stages and "federated" in summary.stages:
        yield say("result.better")
    if summary.federated_round is not None and summary.finished is None:
        yield say("result.unfinished", round=summary.federated_round)
    if summary.personal and "federated" in summary.stages:
        yield whose(summary, say)
    if summary.personal:
        yield from gains(summary, say)
    for line in incomplete(summary, say):
        yield say("result.incomplete", stages=line)


def whose(summary: RunSummary, say: Language) -> str:
    """What figures of a method without a global model are of."""
    without = [one.name for one in summary.clients if not one.contributions]
    told = say("personal.whose", method=summary.method)
    return told if not without else f"{told}{say.between}{say('personal.without', clients=say.listed(without))}"


def _losses(stage: Stage, everyone: str) -> dict[str, float | None]:
    together = stage.pooled
    each = {name: scores.loss for name, scores in stage.clients.items()}
    return {**each, everyone: None if together is None else together.loss}


def questions(summary: RunSummary, say: Language) -> Html:
    """Each question with the answer of the base and of the federated model (of one client, where each has its own)."""
    if not summary.answers:
        return Html()
    return section(say("answers"), *(_answer(answer, say) for answer in summary.answers))


def _answer(answer: Answer, say: Language) -> Html:
    """Question and answers are of the run, in whatever language they are."""
    after = say("answers.after") if answer.client is None else say("answers.after.of", client=answer.client)
    cards = [
        element("div", element("h4", label), _said(text, say), class_="answer")
        for label, text in ((say("answers.before"), answer.before), (after, answer.after))
        if text is not None
    ]
    return join((element("h3", answer.question, lang="und"), element("div", *cards, class_="answers")))


def _said(text: str, say: Language) -> Html:
    said = text.strip()
    return element("span", said, lang="und") if said else element("span", say("answers.empty"))
