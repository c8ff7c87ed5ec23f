"""Leading vectors found from those of another matrix, against all of them."""

import pytest
import torch

from fedloom.aggregation import leading_vectors
from fedloom.aggregation.leading_vectors import SPARE, all_vectors, known_vectors, worthwhile

SIDE, ROWS, COUNT = 160, 10, 5
MISSED = 1e-5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows, columns, seed):
    return torch.linalg.qr(random(rows, columns, seed=seed)).Q


def with_strengths(strengths, seed=0):
    u, v = (orthonormal(SIDE, SIDE, seed + more) for more in (1, 2))
    return (u * torch.tensor(strengths, dtype=torch.float64)) @ v.T, u, v


def cancelling_the_leading():
    """What is taken off are the strongest directions of the sum, and nothing else."""
    total, u, v = with_strengths([100.0] * ROWS + [5.0 - number / 100 for number in range(SIDE - ROWS)])
    return total, u[:, :ROWS] * 100.0, v[:, :ROWS].T


def unseen_in_the_sum():
    """The strongest directions of what is left have cancelled out of the sum."""
    total, u, v = with_strengths([2.0 - number / 1000 for number in range(SIDE - ROWS)] + [0.0] * ROWS)
    return total, u[:, -ROWS:] * -1000.0, v[:, -ROWS:].T


def few_directions():
    left, right = random(SIDE, ROWS + 2, seed=7), random(ROWS + 2, SIDE, seed=8)
    return left @ right, left[:, :ROWS], right[:ROWS]


CASES = {
    "flat": lambda: (random(SIDE, SIDE), random(SIDE, ROWS, seed=1), random(ROWS, SIDE, seed=2)),
    "steep": lambda: (with_strengths([2.0**-n for n in range(SIDE)])[0], random(SIDE, ROWS, seed=1) / 100,
                      random(ROWS, SIDE, seed=2) / 100),
    "cancelling the leading": cancelling_the_leading,
    "unseen in the sum": unseen_in_the_sum,
    "few directions": few_directions,
    "nothing left": lambda: (few_directions()[1] @ few_directions()[2], *few_directions()[1:]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_more_is_missed_than_was_said(case):
    total, left, rows = CASES[case]()
    matrix, known = total - left @ rows, all_vectors(total, SIDE)
    assert worthwhile(SIDE, ROWS, COUNT)
    found = known_vectors(matrix, known, rows, COUNT)
    torch.testing.assert_close(found.T @ found, torch.eye(COUNT, dtype=torch.float64), rtol=0, atol=1e-9)
    squares = torch.linalg.svdvals(matrix).square()
    missed = float(squares[:COUNT].sum() - (matrix @ found).square().sum())
    assert missed <= MISSED * float(squares[COUNT:].sum()) + 1e-12 * float(total.square().sum())


def test_a_few_steps_are_enough_where_clients_are_many(monkeypatch):
    monkeypatch.setattr(leading_vectors, "all_vectors", lambda *_: pytest.fail("all vectors were computed"))
    parts = [(random(SIDE, ROWS, seed=n), random(ROWS, SIDE, seed=900 + n)) for n in range(60)]
    total = sum(left @ rows for left, rows in parts)
    left, rows = parts[7]
    known = torch.linalg.svd(total).Vh.T
    assert known_vectors(total - left @ rows, known, rows, COUNT).shape == (SIDE, COUNT)


def test_what_does_not_converge_is_computed_whole(monkeypatch):
    monkeypatch.setattr(leading_vectors, "STEPS", 1)
    total, left, rows = CASES["flat"]()
    matrix = total - left @ rows
    assert torch.equal(known_vectors(matrix, all_vectors(total, SIDE), rows, COUNT), all_vectors(matrix, COUNT))


def test_a_narrow_matrix_is_not_worth_it():
    assert not worthwhile(4 * (COUNT + 2 * ROWS + SPARE) - 1, ROWS, COUNT)
