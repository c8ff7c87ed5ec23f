"""Rolled-back rounds and the end that they led to no longer count; everything else does."""

from fedloom.store.in_force import branch_of, committed, in_force


def record(kind, **fields):
    return {"kind": kind, **fields}


JOURNAL = [
    record("run_started"),
    record("round_committed", round=1),
    record("evaluation", stage="round", round=1),
    record("round_committed", round=2),
    record("evaluation", stage="round", round=2),
    record("evaluation", stage="final", round=2),
    record("evaluation", stage="alone", round=0),
    record("answer", stage="base"),
    record("answer", stage="final"),
    record("run_finished", rounds=2),
]


def test_without_a_rollback_everything_is_in_force():
    assert in_force(JOURNAL) == JOURNAL


def test_a_rollback_voids_later_rounds_and_the_end():
    after = [record("rolled_back", round=1), record("round_committed", round=2)]
    assert in_force([*JOURNAL, *after]) == [*JOURNAL[:3], record("answer", stage="base"), *after]


def test_a_run_that_goes_on_had_no_end_and_lost_no_round():
    after = record("continued", round=2)
    assert in_force([*JOURNAL, after]) == [*JOURNAL[:5], record("answer", stage="base"), after]


def test_only_an_operators_rollbacks_begin_a_branch():
    records = [record("round_committed", round=n, digest=f"d{n}") for n in (1, 2, 3)]
    records += [record("rolled_back", round=2), record("rolled_back", round=1, by="operator")]
    assert branch_of(records) == 1
    assert committed(records) == {1: "d1"}
