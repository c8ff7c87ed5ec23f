"""Work on threads: in order, each on one, and torch as it was before."""

import threading

import pytest
import torch

from fedloom.adapters.algebra import spectra
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import SMALL, each_on_a_thread, threads_for


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_are_in_order_and_every_act_has_one_thread(threads):
    seen = each_on_a_thread(lambda number: (number, torch.get_num_threads()), range(9))
    assert seen == [(number, 1) for number in range(9)]
    assert torch.get_num_threads() == threads


def test_as_many_at_once_as_there_are_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    together = threading.Barrier(3, timeout=20)  # broken, if fewer than three wait for each other
    try:
        assert sorted(each_on_a_thread(lambda _: together.wait(), range(3))) == [0, 1, 2]
    finally:
        torch.set_num_threads(before)


def test_an_error_comes_out_and_torch_is_as_it_was(threads):
    def fail(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        each_on_a_thread(fail, range(3))
    assert torch.get_num_threads() == threads


def test_gradients_are_recorded_exactly_where_the_caller_records_them(threads):
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            assert each_on_a_thread(lambda _: torch.is_grad_enabled(), range(3)) == [recorded] * 3


def test_the_number_of_threads_changes_no_bit():
    draws, found = torch.Generator().manual_seed(0), []
    deltas = {
        f"{n}": Factors(*(torch.randn(shape, generator=draws) for shape in ((80, 300), (300, 80)))) for n in "abc"
    }
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(spectra(deltas))
    torch.set_num_threads(before)
    for module in deltas:
        assert torch.equal(found[0][module].v, found[1][module].v)
        assert torch.equal(found[0][module].u, found[1][module].u)


def test_small_tensors_are_worked_on_by_one_thread_and_large_ones_as_before(threads):
    for numbers, wanted in ((SMALL, 1), (SMALL + 1, threads)):
        with threads_for(numbers), threads_for(numbers):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == threads


def test_every_thread_is_told_before_its_first_act(monkeypatch):
    told, acted, tell = set(), set(), torch.set_num_threads

    def telling(threads):
        if threads == 1:
            told.add(threading.get_ident())
        tell(threads)

    before = torch.get_num_threads()
    tell(3)
    monkeypatch.setattr(torch, "set_num_threads", telling)
    together = threading.Barrier(3, timeout=20)

    def act(_):
        acted.add((threading.get_ident(), threading.get_ident() in told))
        together.wait()

    try:
        each_on_a_thread(act, range(3))
    finally:
        tell(before)
    assert len(acted) == 3
    assert all(was_told for _, was_told in acted)
