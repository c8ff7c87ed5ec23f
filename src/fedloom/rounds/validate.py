"""No contribution is used before it was checked against what was asked for."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from fedloom.adapters.algebra import distance
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import kept_rank
from fedloom.errors import ContributionRefusedError
from fedloom.rounds.messages import Assignment, Contribution

ABSURD = 1e18  # above it products and decompositions in float32 overflow; no training moves a weight as far
# What the journal says itself of an evaluation, or of a contribution: a metric of such a name would take its place.
TAKEN_ALWAYS = frozenset(
    {"number", "time", "kind", "previous", "record_digest", "not_finite", "stage", "round", "client"}
    | {"bytes_up", "bytes_down", "holds"}
)
TAKEN = (
    TAKEN_ALWAYS
    | {"examples", "update_norm", "change_norm", "busy_seconds", "ledger"}
    | {
        "late_of",
        "late_age",
        "late_weight",
        "late_file",
    }
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def validate(
    contribution: Contribution, assignment: Assignment, *, rows: int, max_update_norm: float | None = None
) -> None:
    """Check one answer to a training assignment.

    rows: training rows that the client registered.  max_update_norm: bound of `update_norm`.
    Raises: ContributionRefusedError naming client and module for another round or client, examples that were not
        registered, missing or unknown modules, other shapes, ranks, scalings or dtypes, changed frozen factors,
        factors that were to stay at the client, numbers that are not finite or absurdly large, a head that does not
        fit, an update above the bound, metrics that are no numbers or have names of the journal, or scores of modules
        that were not asked for.
    """
    client = assignment.client
    _check_identity(contribution, assignment)
    if type(contribution.examples) is not int or not 0 < contribution.examples <= rows:
        raise ContributionRefusedError(
            client,
            "the number of examples is not what the client registered",
            expected=f"a whole number from 1 to {rows}",
            found=repr(contribution.examples),
        )
    expected, found = set(assignment.start.trainable), set(contribution.adapter)
    for module in sorted(expected ^ found):
        what = "the module is missing" if module in expected else "the module was not asked for"
        raise ContributionRefusedError(client, what, module=module, expected=f"the {len(expected)} modules assigned")
    for module, factors in contribution.adapter.items():
        start = assignment.start.trainable[module]
        _check_factors(client, module, factors, start, _ranks(assignment, start))
        _check_untouched(client, module, factors, start, assignment)
    _check_head(contribution, assignment)
    _check_metrics(contribution, client)
    _check_importance(contribution, assignment)
    _check_ledger(contribution, assignment)
    bound = ABSURD if max_update_norm is None else min(max_update_norm, ABSURD)
    moved = update_norm(contribution, assignment)
    if not moved <= bound:
        raise ContributionRefusedError(
            client, "the update is too large", expected=f"a norm of at most {bound:g}", found=f"{moved:g}"
        )


def validate_masked(contribution: Contribution, assignment: Assignment) -> None:
    """Check what a client sends openly of a secure sum: metrics and its keys, and nothing that is to be masked.

    Raises: ContributionRefusedError naming the client.
    """
    client = assignment.client
    _check_identity(contribution, assignment)
    if contribution.adapter or contribution.head or contribution.examples or contribution.importance:
        raise ContributionRefusedError(
            client,
            "what was to be masked was sent as it is",
            expected="a secure sum",
            found="factors, head, counts or scores",
        )
    if not isinstance(contribution.advertisement, str) or not contribution.advertisement:
        raise ContributionRefusedError(client, "the keys for the secure sum are missing")
    _check_metrics(contribution, client)
    _check_ledger(contribution, assignment)


def update_norm(contribution: Contribution, assignment: Assignment) -> float:
    """|delta - start delta| (Frobenius norm); where the client keeps a side, the norm of the change of those sent.

    The server cannot know the delta of a client that keeps its b: by the b that was dispatched it would always be 0.
    """
    if not assignment.is_personal:
        return distance(contribution.adapter, assignment.start.trainable)
    sides = assignment.sends
    return math.sqrt(
        math.fsum(
            float((getattr(factors, side).double() - getattr(assignment.start.trainable[module], side)).square().sum())
            for module, factors in contribution.adapter.items()
            for side in sides[module]
        )
    )


def _check_identity(contribution: Contribution, assignment: Assignment) -> None:
    wanted = (assignment.client, assignment.round)
    if (contribution.client, contribution.round) != wanted:
        raise ContributionRefusedError(
            assignment.client,
            "the answer belongs to another assignment",
            expected=f"client {wanted[0]!r}, round {wanted[1]}",
            found=f"client {contribution.client!r}, round {contribution.round}",
        )


def _ranks(assignment: Assignment, start: Factors) -> tuple[int, ...]:
    """The ranks that the client may send: the one dispatched, or what its pruning leaves of it."""
    share = None if assignment.work is None else assignment.work.prune
    return (start.rank,) if share is None else (start.rank, kept_rank(start.rank, share))


def _check_factors(client: str, module: str, found: Factors, start: Factors, ranks: tuple[int, ...]) -> None:
    def refuse(what: str, expected: object, value: object) -> None:
        raise ContributionRefusedError(client, what, module=module, expected=expected, found=value)

    if found.rank not in ranks:
        refuse("the rank is not the planned one", " or ".join(map(str, ranks)), found.rank)
    if found.shape != start.shape:
        refuse("the shape is not the layer's", start.shape, found.shape)
    if found.scaling != start.scaling or found.a.dtype != start.a.dtype:
        refuse(
            "scaling and dtype must be those dispatched", (start.scaling, start.a.dtype), (found.scaling, found.a.dtype)
        )
    if not found.finite():
        refuse("the factors hold numbers that are not finite", "finite numbers", "NaN or infinity")
    largest = max(_largest(found.a), _largest(found.b))
    if largest > ABSURD:
        refuse("the factors hold absurdly large numbers", f"at most {ABSURD:g}", f"{largest:g}")


def _check_untouched(client: str, module: str, found: Factors, start: Factors, assignment: Assignment) -> None:
    for side in "ab":
        if side in assignment.sends[module] or torch.equal(getattr(found, side), getattr(start, side)):
            continue
        kept = side in assignment.keeps.get(module, "")
        what = (
            f"the factor {side} was sent, which stays at its client"
            if kept
            else f"the frozen factor {side} was changed"
        )
        raise ContributionRefusedError(client, what, module=module, expected="the one dispatched", found="another one")


def _check_head(contribution: Contribution, assignment: Assignment) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in assignment.head.items()}
    found = {name: tuple(tensor.shape) for name, tensor in contribution.head.items()}
    if expected != found:
        raise ContributionRefusedError(assignment.client, "the head does not fit", expected=expected, found=found)
    for name, tensor in contribution.head.items():
        if not _largest(tensor) <= ABSURD:
            raise ContributionRefusedError(
                assignment.client,
                "the head holds numbers that are not finite, or absurdly large",
                module=name,
                expected=f"at most {ABSURD:g}",
                found=f"{_largest(tensor):g}",
            )


def _check_importance(contribution: Contribution, assignment: Assignment) -> None:
    """Scores are of all modules that the client trains, or of none, and have the sum that was asked for."""
    client, found = contribution.client, contribution.importance
    total = None if assignment.work is None else assignment.work.importance
    if not isinstance(found, Mapping):
        raise ContributionRefusedError(client, "the importance is no table", expected="scores by module")
    if not found:
        return
    if total is None:
        raise ContributionRefusedError(client, "importance was measured, which was not asked for", expected="no scores")
    expected = set(assignment.trained_modules)
    for module in sorted(expected ^ set(found)):
        what = "the module has no score" if module in expected else "a module was scored that the client does not train"
        raise ContributionRefusedError(client, what, module=module, expected=f"the {len(expected)} modules it trains")
    for module, score in found.items():
        if not _is_number(score) or not 0 <= score <= total * (1 + 1e-6):
            asked = f"a number from 0 to {total:g}"
            raise ContributionRefusedError(
                client, "the score is out of range", module=module, expected=asked, found=repr(score)[:80]
            )
    if not math.isclose(math.fsum(found.values()), total, rel_tol=1e-6):
        raise ContributionRefusedError(
            client, "the scores have another sum", expected=f"{total:g}", found=f"{math.fsum(found.values()):g}"
        )


def _check_ledger(contribution: Contribution, assignment: Assignment) -> None:
    """It goes to the journal as it is, so that it is a digest or nothing, and nothing where no noise was asked for."""
    found = contribution.ledger
    if found == "" or (assignment.is_private and isinstance(found, str) and _DIGEST.fullmatch(found)):
        return
    expected = "a digest of 64 hexadecimal digits" if assignment.is_private else "none, as no noise was asked for"
    raise ContributionRefusedError(
        contribution.client, "the head of the privacy ledger is none", expected=expected, found=repr(found)[:80]
    )


def _largest(tensor: Tensor) -> float:
    """The largest absolute value; NaN if one is NaN."""
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def validate_measured(contribution: Contribution, assignment: Assignment) -> None:
    """Check one answer to an evaluation: whose it is, and that it has numbers, a loss and its weight among them.

    A loss that is not finite is a result: the model has diverged.
    Raises: ContributionRefusedError naming the client and what is wrong.
    """
    client = assignment.client
    _check_identity(contribution, assignment)
    _check_names(contribution, client, TAKEN_ALWAYS)
    for name, value in contribution.metrics.items():
        if type(value) is not float and not _is_number(value):
            _refuse_metric(client, name, value, "a number")
    for name in ("loss", "label_tokens"):
        if name not in contribution.metrics:
            raise ContributionRefusedError(client, f"the metric {name!r} is missing", expected="what was measured")
    if not _is_number(contribution.metrics["label_tokens"]) or contribution.metrics["label_tokens"] < 0:
        _refuse_metric(client, "label_tokens", contribution.metrics["label_tokens"], "a number from 0")


def _check_metrics(contribution: Contribution, client: str) -> None:
    _check_names(contribution, client, TAKEN)
    for name, value in contribution.metrics.items():
        if not _is_number(value):
            _refuse_metric(client, name, value, "a finite number")


def _check_names(contribution: Contribution, client: str, taken: frozenset[str]) -> None:
    if not isinstance(contribution.metrics, Mapping):
        raise ContributionRefusedError(
            client, "the metrics are no table", expected="numbers by name", found=repr(contribution.metrics)[:80]
        )
    for name in contribution.metrics:
        if not isinstance(name, str) or name in taken:
            raise ContributionRefusedError(client, f"a metric cannot be called {name!r}, as the journal has that name")


def _refuse_metric(client: str, name: str, value: object, expected: str) -> None:
    raise ContributionRefusedError(
        client, f"the metric {name!r} is not {expected}", expected="a number", found=repr(value)[:80]
    )


def _is_number(value: object) -> bool:
    """A whole or floating-point number that fits one of 64 bits; True and False are none."""
    if type(value) not in (int, float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # type: ignore[operator]
