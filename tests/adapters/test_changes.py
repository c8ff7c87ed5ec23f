"""Changes of deltas against dense arithmetic."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.changes import by_movement, changes, energy_rank, together
from fedloom.adapters.factors import Factors


def adapter(seed, ranks):
    draw = torch.Generator().manual_seed(seed)

    def factors(rank):
        return Factors(torch.randn(rank, 10, generator=draw), torch.randn(8, rank, generator=draw), 0.5)

    return Adapter({module: factors(rank) for module, rank in ranks.items()})


def dense(adapter, module):
    return adapter[module].scaling * adapter[module].b @ adapter[module].a if module in adapter else torch.zeros(8, 10)


BEFORE, AFTER = adapter(1, {"m": 2, "n": 3, "gone": 1}), adapter(2, {"m": 3, "n": 3, "new": 2})


def test_every_figure_is_that_of_the_dense_deltas():
    found = changes(BEFORE, AFTER)
    assert set(found) == {"m", "n", "gone", "new"}
    for module, change in found.items():
        old, new = dense(BEFORE, module), dense(AFTER, module)
        assert change.before == pytest.approx(float(old.norm()), rel=1e-5)
        assert change.after == pytest.approx(float(new.norm()), rel=1e-5)
        assert change.moved == pytest.approx(float((new - old).norm()), rel=1e-5)
        assert (change.rank_before, change.rank_after) == tuple(int(torch.linalg.matrix_rank(m)) for m in (old, new))
        squares = torch.linalg.svdvals(new - old).square()
        fewest = next(k for k in range(1, 9) if squares[:k].sum() >= 0.99 * squares.sum())
        assert change.energy_rank == fewest
        if module in BEFORE and module in AFTER:
            assert change.cosine == pytest.approx(float((old * new).sum() / old.norm() / new.norm()), abs=1e-5)
            assert change.relative == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-5)
    assert found["new"].relative is found["new"].cosine is found["gone"].cosine is None
    assert by_movement(found)[0] == max(found, key=lambda module: found[module].moved)


def test_all_modules_together_are_one_long_delta():
    found = together(changes(BEFORE, AFTER).values())
    old, new = (
        torch.cat([dense(each, module).flatten() for module in ("m", "n", "gone", "new")]) for each in (BEFORE, AFTER)
    )
    assert found.moved == pytest.approx(float((new - old).norm()), rel=1e-5)
    assert found.cosine == pytest.approx(float(old @ new / old.norm() / new.norm()), abs=1e-5)
    assert (found.rank_before, found.rank_after) == (6, 8)


def test_nothing_moved_of_what_stayed():
    change = changes(BEFORE, BEFORE)["m"]
    assert change.moved < 1e-5 * change.before
    assert change.cosine == pytest.approx(1.0)
    nothing = Adapter({"m": Factors(torch.ones(1, 10), torch.zeros(8, 1))})
    (zero,) = changes(nothing, nothing).values()
    assert (zero.moved, zero.relative, zero.cosine, zero.energy_rank) == (0.0, None, None, 0)


@pytest.mark.parametrize(("strengths", "count"), [([10.0, 1.0], 1), ([10.0, 1.1], 2), ([1.0] * 4, 4), ([], 0)])
def test_directions_are_counted_until_the_energy_is_there(strengths, count):
    assert energy_rank(torch.tensor(strengths)) == count
