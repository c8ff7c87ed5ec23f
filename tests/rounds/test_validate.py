"""Every way in which a contribution can be wrong is refused by client and module."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import pad
from fedloom.adapters.factors import Factors
from fedloom.errors import ContributionRefusedError
from fedloom.privacy.mechanism import PrivacyPromise
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.validate import TAKEN, TAKEN_ALWAYS, update_norm, validate, validate_masked, validate_measured
from fedloom.store.journal import RESERVED

MODULE = "layers.0.q_proj"


def with_module(contribution, module, factors):
    return replace(contribution, adapter=Adapter({**contribution.adapter, module: factors}))


def changed(contribution, change):
    return with_module(contribution, MODULE, change(contribution.adapter[MODULE]))


def poisoned(factors, value):
    b = factors.b.clone()
    b[0, 0] = value
    return Factors(factors.a, b, factors.scaling)


WRONG = {
    "nan": lambda c: changed(c, lambda f: poisoned(f, float("nan"))),
    "infinity": lambda c: changed(c, lambda f: poisoned(f, float("inf"))),
    "rank above the plan": lambda c: changed(c, lambda f: pad(f, f.rank + 1)),
    "shape of another layer": lambda c: changed(c, lambda f: Factors(f.a, f.b[:-1], f.scaling)),
    "other scaling": lambda c: changed(c, lambda f: f.scaled(100.0)),
    "other dtype": lambda c: changed(c, lambda f: f.to(torch.float64)),
    "huge": lambda c: changed(c, lambda f: Factors(f.a * 1e25, f.b * 1e25, f.scaling)),
    "huge beside nothing": lambda c: changed(c, lambda f: Factors(f.a * 1e37, f.b * 0, f.scaling)),
    "missing module": lambda c: replace(c, adapter=Adapter({k: v for k, v in c.adapter.items() if k != MODULE})),
    "unknown module": lambda c: with_module(c, "lm_head", c.adapter[MODULE]),
}
WRONG_AT_ALL = {
    "no examples": lambda c: replace(c, examples=0),
    "more examples than registered": lambda c: replace(c, examples=11),
    "of an earlier round": lambda c: replace(c, round=0),
    "of another client": lambda c: replace(c, client="site-b"),
    "head missing": lambda c: replace(c, head={}),
    "head not finite": lambda c: replace(c, head={"score.weight": torch.full((2, 8), float("nan"))}),
    "head huge": lambda c: replace(c, head={"score.weight": torch.full((2, 8), 1e30)}),
    "metric not finite": lambda c: replace(c, metrics={"loss": float("nan")}),
    "large product": lambda c: replace(
        c, adapter=c.adapter.map(lambda _, f: Factors(f.a * 1e12, f.b * 1e12, f.scaling))
    ),
    **{
        f"examples {value!r}": lambda c, value=value: replace(c, examples=value)
        for value in ("2", 2.5, 2.0, True, None)
    },
    **{
        f"metric {value!r}"[:20]: lambda c, value=value: replace(c, metrics={"loss": value})
        for value in (None, "x", True, [1.0], 10**400)
    },
    **{f"metric called {name}": lambda c, name=name: replace(c, metrics={name: 1.0}) for name in sorted(TAKEN)},
}


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_AT_ALL])
def test_a_wrong_contribution_is_refused_by_client_and_module(wrong, contribution, assignment):
    change = {**WRONG, **WRONG_AT_ALL}[wrong]
    with pytest.raises(ContributionRefusedError, match="site-a") as refused:
        validate(change(contribution), assignment, rows=10)
    if wrong in WRONG:
        expected = "lm_head" if wrong == "unknown module" else MODULE
        assert refused.value.module == expected


def test_a_right_contribution_is_accepted(contribution, assignment):
    validate(contribution, assignment, rows=5)


def test_an_update_above_the_bound_is_refused(contribution, assignment):
    with pytest.raises(ContributionRefusedError, match="too large"):
        validate(contribution, assignment, rows=10, max_update_norm=0.01)
    validate(contribution, assignment, rows=10, max_update_norm=1e6)


def test_a_changed_frozen_factor_is_refused(contribution, assignment):
    frozen = replace(assignment, trains={**assignment.trains, MODULE: "b"})
    with pytest.raises(ContributionRefusedError, match="frozen factor a"):
        validate(contribution, frozen, rows=10)


@pytest.mark.parametrize("head", ["ab" * 31, "AB" * 32, "ab" * 32 + "\n", 7, None])
def test_what_is_no_head_of_a_ledger_is_refused(contribution, assignment, head):
    """It would go to the journal as it is."""
    promise = PrivacyPromise("example", 8.0, 1e-5, 1.0, None, "rdp", 3)
    private = replace(assignment, work=replace(assignment.work, privacy=promise))
    validate(replace(contribution, ledger="ab" * 32), private, rows=10)
    validate(contribution, private, rows=10)
    with pytest.raises(ContributionRefusedError, match="head of the privacy ledger is none"):
        validate(replace(contribution, ledger=head), private, rows=10)
    with pytest.raises(ContributionRefusedError, match="no noise was asked for"):
        validate(replace(contribution, ledger="ab" * 32), assignment, rows=10)


def kept(assignment):
    """The assignment of a client that keeps its b."""
    return replace(assignment, keeps=dict.fromkeys(assignment.start.trainable, "b"))


def only(side, contribution, assignment):
    """The contribution with the other side as it was dispatched."""

    def held(module, factors):
        start = assignment.start.trainable[module]
        a, b = (factors.a, start.b) if side == "a" else (start.a, factors.b)
        return Factors(a, b, factors.scaling)

    return replace(contribution, adapter=contribution.adapter.map(held))


def test_a_side_that_stays_at_its_client_is_refused_if_it_was_sent(contribution, assignment):
    asked = kept(assignment)
    assert asked.trains[MODULE] == "ab", "it is trained all the same"
    validate(only("a", contribution, assignment), asked, rows=10)
    with pytest.raises(ContributionRefusedError, match="factor b was sent, which stays at its client") as refused:
        validate(contribution, asked, rows=10)
    assert refused.value.module in assignment.start.trainable


def test_the_bound_of_a_personal_update_is_on_what_was_sent(contribution, assignment):
    asked, sent = kept(assignment), only("a", contribution, assignment)
    start = assignment.start.trainable
    moved = sum(float((f.a - start[m].a).double().square().sum()) for m, f in sent.adapter.items()) ** 0.5
    assert moved > 1.0
    assert update_norm(sent, asked) == pytest.approx(moved)
    assert update_norm(sent, assignment) == 0.0, "by the b that was dispatched, which is zero"
    validate(sent, asked, rows=10, max_update_norm=1.01 * moved)
    with pytest.raises(ContributionRefusedError, match="too large"):
        validate(sent, asked, rows=10, max_update_norm=0.99 * moved)


def test_every_name_that_the_journal_keeps_for_itself_is_taken(contribution, assignment):
    assert RESERVED <= TAKEN
    validate(replace(contribution, metrics={"loss": 1, "seconds": 0.5}), assignment, rows=10)


@pytest.fixture
def measured(assignment) -> tuple[Contribution, Assignment]:
    asked = replace(assignment, kind="evaluate", work=None, trains={})
    metrics = {"loss": 2.0, "label_tokens": 5.0, "examples": 5}
    return Contribution(asked.round, asked.client, 5, metrics), asked


def test_what_was_measured_is_accepted_and_so_is_a_loss_that_diverged(measured):
    answer, asked = measured
    validate_measured(answer, asked)
    validate_measured(replace(answer, metrics={**answer.metrics, "loss": float("nan")}), asked)


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        [],
        {"loss": 1.0},
        {"label_tokens": 1.0},
        {"loss": "1", "label_tokens": 1.0},
        {"loss": True, "label_tokens": 1.0},
        {"loss": 1.0, "label_tokens": -1.0},
        {"loss": 1.0, "label_tokens": float("nan")},
        {"loss": 10**400, "label_tokens": 1.0},
        *({"loss": 1.0, "label_tokens": 1.0, name: 3} for name in sorted(TAKEN_ALWAYS)),
    ],
)
def test_measurements_that_are_none_are_refused(metrics, measured):
    answer, asked = measured
    with pytest.raises(ContributionRefusedError):
        validate_measured(replace(answer, metrics=metrics), asked)


def test_a_measurement_of_another_client_or_round_is_refused(measured):
    answer, asked = measured
    for changed in (replace(answer, client="somebody"), replace(answer, round=answer.round + 1)):
        with pytest.raises(ContributionRefusedError):
            validate_measured(changed, asked)


def measuring(assignment, contribution, scores):
    work = replace(assignment.work, importance=0.5)
    return replace(assignment, work=work), replace(contribution, importance=scores)


OTHER = "layers.0.v_proj"


@pytest.mark.parametrize("scores", [{}, {MODULE: 0.5, OTHER: 0.0}, {MODULE: 0.2, OTHER: 0.3}])
def test_scores_with_the_sum_that_was_asked_for_are_accepted(scores, assignment, contribution):
    asked, answer = measuring(assignment, contribution, scores)
    validate(answer, asked, rows=10)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({MODULE: 0.5}, f"(?s){OTHER}.*no score"),
        ({MODULE: 0.2, OTHER: 0.2, "lm_head": 0.1}, "(?s)lm_head.*does not train"),
        ({MODULE: 0.6, OTHER: -0.1}, "(?s)from 0 to 0.5.*-?0"),
        ({MODULE: 0.4, OTHER: -0.1}, "(?s)from 0 to 0.5.*-0.1"),
        ({MODULE: float("nan"), OTHER: 0.5}, "(?s)out of range.*nan"),
        ({MODULE: "0.2", OTHER: 0.3}, "out of range"),
        ({MODULE: True, OTHER: 0.3}, "out of range"),
        ({MODULE: 1.7e308, OTHER: 1.7e308}, "out of range"),
        ({MODULE: 10**400, OTHER: 0.3}, "out of range"),
        ({MODULE: 0.5, OTHER: 0.5}, "(?s)another sum.*0.5.*1"),
        ([0.2, 0.3], "no table"),
    ],
)
def test_other_scores_are_refused(scores, why, assignment, contribution):
    asked, answer = measuring(assignment, contribution, scores)
    with pytest.raises(ContributionRefusedError, match=why):
        validate(answer, asked, rows=10)


def test_scores_that_nobody_asked_for_are_refused(assignment, contribution):
    with pytest.raises(ContributionRefusedError, match="not asked for"):
        validate(replace(contribution, importance={MODULE: 0.2, OTHER: 0.3}), assignment, rows=10)


def test_scores_beside_a_secure_sum_are_refused(contribution, assignment):
    open_scores = replace(
        contribution, adapter=Adapter(), head={}, examples=0, advertisement="00", importance={"x": 1.0}
    )
    with pytest.raises(ContributionRefusedError, match="sent as it is"):
        validate_masked(open_scores, assignment)
    validate_masked(replace(open_scores, importance={}), assignment)
