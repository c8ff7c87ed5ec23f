"""What is measured on held-out rows, how answers are scored, and how clients are pooled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from typing import Any

from fedloom.errors import DataError

# Runs of letters and digits; ideographs and kana one by one, as Chinese and Japanese put no spaces between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_COUNTS = ("label_tokens", "rows")
_GENERATED = ("rouge1", "rougeL", "exact_match")


@dataclass(frozen=True)
class Scores:
    """What was measured of one model on the held-out rows of one client, or of all of them.

    loss: mean over label_tokens, in nats.  rows: held-out rows behind loss and accuracy.
    rouge1, rougeL: mean F1 over generated_rows, 0 to 1.  exact_match, accuracy: share, 0 to 1.
    None: not measured.

    Raises: DataError for a negative count.
    """

    loss: float
    label_tokens: int
    rows: int
    rouge1: float | None = None
    rougeL: float | None = None
    exact_match: float | None = None
    accuracy: float | None = None
    generated_rows: int = 0

    def __post_init__(self) -> None:
        for name in ("label_tokens", "rows", "generated_rows"):
            if getattr(self, name) < 0:
                raise DataError("a count of an evaluation is negative", where=name, found=getattr(self, name))


def scores_of(record: Mapping[str, Any]) -> Scores:
    """The scores in the metrics or the journal record of an evaluation; other keys are left alone.

    Raises: DataError where the loss or a count is missing.
    """
    absent = missing(record)
    if absent:
        where = f"evaluation of client {record.get('client')!r}"
        raise DataError(f"{', '.join(absent)} missing", where=where, found=", ".join(sorted(record)) or "nothing")
    counts: dict[str, Any] = {name: int(measured(record, name) or 0) for name in (*_COUNTS, "generated_rows")}
    scores: dict[str, Any] = {name: measured(record, name) for name in (*_GENERATED, "accuracy")}
    return Scores(float(measured(record, "loss") or 0.0), **counts, **scores)


def missing(record: Mapping[str, Any]) -> list[str]:
    """The names of what scores_of cannot do without and does not find; a count that is not finite is none."""
    found = {name: measured(record, name) for name in ("loss", *_COUNTS)}
    return [name for name, value in found.items() if value is None or (name in _COUNTS and not isfinite(value))]


def measured(record: Mapping[str, Any], name: str) -> float | None:
    """A number of a record. JSON has no nan and no inf: a journal keeps them under "not_finite"."""
    value = record.get(name)
    if value is None:
        value = (record.get("not_finite") or {}).get(name)
    return None if value is None else float(value)


def words(text: str) -> list[str]:
    """The lower-cased words of a text: what ROUGE counts. No stemming."""
    return _WORD.findall(text.lower())


def rouge1(prediction: str, reference: str) -> float:
    """ROUGE-1 F1: 2 * overlap / (words of prediction + words of reference); 0 where either has no words.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", section 2; F1 as in rouge-score.
    """
    predicted, expected = words(prediction), words(reference)
    return _f1((Counter(predicted) & Counter(expected)).total(), predicted, expected)


def rougeL(prediction: str, reference: str) -> float:
    """ROUGE-L F1: 2 * longest common subsequence / (words of prediction + words of reference).

    The text is one sequence; line breaks do not count. Source: Lin 2004, section 3.1.
    """
    predicted, expected = words(prediction), words(reference)
    return _f1(_common_subsequence(predicted, expected), predicted, expected)


def exact_match(prediction: str, reference: str) -> bool:
    """Whether two texts are equal up to case and white space."""
    return prediction.casefold().split() == reference.casefold().split()


def accuracy(predicted: Sequence[object], expected: Sequence[object]) -> float:
    """The share of rows whose class was predicted. Raises: DataError for no rows or unequal numbers of them."""
    if not expected or len(predicted) != len(expected):
        raise DataError("accuracy needs one prediction per row", expected=len(expected), found=len(predicted))
    return sum(one == other for one, other in zip(predicted, expected, strict=True)) / len(expected)


def answer_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean rouge1, rougeL and exact_match of answers, and generated_rows. Raises: DataError as accuracy does."""
    if not references or len(predictions) != len(references):
        raise DataError("scoring needs one answer per row", expected=len(references), found=len(predictions))
    pairs = list(zip(predictions, references, strict=True))
    score_of = {"rouge1": rouge1, "rougeL": rougeL, "exact_match": exact_match}
    return {name: fsum(score(*pair) for pair in pairs) / len(pairs) for name, score in score_of.items()} | {
        "generated_rows": len(pairs)
    }


def pooled(per_client: Mapping[str, Scores]) -> Scores:
    """The scores of all clients' held-out rows together, as if they lay in one place.

    loss = sum_k label_tokens_k * loss_k / sum_k label_tokens_k; accuracy weighs by rows, the others by generated_rows.
    A score that some client did not measure is None: a mean over the others would not be comparable.

    Raises: DataError for no clients or no label tokens at all.
    """
    clients = [per_client[name] for name in sorted(per_client)]
    tokens = sum(client.label_tokens for client in clients)
    if not tokens:
        raise DataError("no label tokens to pool a loss over", where=f"{len(clients)} clients")
    rows = [client.rows for client in clients]
    generated = [client.generated_rows or client.rows for client in clients]
    return Scores(
        loss=fsum(client.loss * client.label_tokens for client in clients if client.label_tokens) / tokens,
        label_tokens=tokens,
        rows=sum(rows),
        generated_rows=sum(client.generated_rows for client in clients),
        accuracy=_mean((client.accuracy for client in clients), rows),
        **{name: _mean((getattr(client, name) for client in clients), generated) for name in _GENERATED},
    )


def _mean(values: Iterable[float | None], weights: Sequence[int]) -> float | None:
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    known = [(value, weight) for value, weight in pairs if value is not None]
    if not known or len(known) < len(pairs):
        return None
    return fsum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def _f1(common: int, predicted: list[str], expected: list[str]) -> float:
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


def _common_subsequence(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence: one row of the table at a time."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
