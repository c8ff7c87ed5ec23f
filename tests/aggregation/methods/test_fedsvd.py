"""fedsvd: ffa's mean, with a new orthonormal a after every round and the same delta."""

import torch

from fedloom.aggregation.laws import dense, relative_error


def test_the_delta_is_that_of_ffa_and_a_is_orthonormal(play, equal_slots):
    run = play("fedsvd", equal_slots)
    for _ in range(3):
        before = run.round(x=1, y=2, z=5)
        expected = {}
        for module in ("q", "v"):
            changes = [upload.weight / 8 * upload.adapter[module].delta() for upload in run.sent.values()]
            expected[module] = sum(changes)
            found = run.state.shared[module]
            torch.testing.assert_close(found.a @ found.a.T, torch.eye(found.rank), atol=1e-5, rtol=0)
            assert found.rank == before.shared[module].rank
            assert not torch.equal(found.a, before.shared[module].a)
        assert relative_error(dense(run.state.delta()), expected, []) < 1e-5


def test_a_delta_of_few_directions_is_filled_up_with_orthogonal_rows_and_zero_b(play, equal_slots):
    from fedloom.adapters.algebra import spectra
    from fedloom.adapters.factors import Factors
    from fedloom.aggregation.methods.fedsvd import factored

    torch.manual_seed(0)
    a = torch.randn(4, 10)
    b = torch.randn(6, 1) @ torch.randn(1, 4)  # one direction
    bank = Factors(a, b)
    found = factored(bank, spectra({"q": bank})["q"])
    assert found.rank == 4
    torch.testing.assert_close(found.a @ found.a.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.delta(), bank.delta(), atol=1e-4, rtol=1e-4)
    assert torch.count_nonzero(found.b[:, 1:].abs() > 1e-5) == 0
