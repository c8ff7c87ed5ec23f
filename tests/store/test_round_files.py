"""A state as files and back: a momentum that is a matrix is written as one."""

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.adapters.sums import Identities
from fedloom.aggregation.world import GlobalState
from fedloom.store import checkpoint
from fedloom.store.round_files import ADAPTER_FILE, from_files, to_files


def momentum():
    draws, identities = torch.Generator().manual_seed(4), Identities()
    wide = {
        f"wide.{n}": identities.factors(torch.randn(shape, generator=draws)) for n, shape in enumerate([(6, 9), (9, 6)])
    }
    return Adapter(
        {**wide, "thin": Factors(torch.randn(2, 9, generator=draws), torch.randn(6, 2, generator=draws), 0.5)}
    )


def read_back(folder, state):
    """The files of round 3 as they are on the disk."""
    checkpoint.commit(folder, 3, to_files(3, state, {}, {}, {}))
    return checkpoint.read(folder, 3)


def test_momentum_comes_back_bit_for_bit_and_travels_without_identities(tmp_path):
    files = read_back(tmp_path, GlobalState(momentum=momentum(), rounds=3))
    state, _, _ = from_files(files, where="round 3")
    assert state.momentum.digest() == momentum().digest()
    adapters, tensors, _ = from_bytes(files[ADAPTER_FILE], where="file")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "momentum/wide.0": (6, 9),
        "momentum/wide.1": (9, 6),
    }
    assert list(adapters["momentum"]) == ["thin"]


def test_the_file_of_a_run_from_before_is_read(tmp_path):
    """In which every momentum was a pair of factors."""
    files = read_back(tmp_path, GlobalState(rounds=3))
    adapters = {"shared": Adapter(), "trunk": Adapter(), "momentum": momentum()}
    old = {**files, ADAPTER_FILE: to_bytes(adapters, {}, facts={"round": "3"})}
    assert from_files(old, where="round 3")[0].momentum.digest() == momentum().digest()
