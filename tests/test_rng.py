"""Seeds are derived by a path of names, the same on every machine."""

import itertools

import torch

from fedloom.rng import child, generator


def test_a_seed_is_pinned_across_machines_and_versions():
    assert child(7, "loom", 3, "site_a") == 902202279052915428


def test_every_part_of_the_path_counts_and_its_type_and_borders_too():
    paths = [
        (1, "a", 2),
        (2, "a", 2),
        (1, "b", 2),
        (1, "a", 3),
        (1, "a", "2"),
        (1, "a"),
        (1, "a2"),
        (1, "a2", ""),
        (1, 2, "a"),
    ]
    seeds = [child(*path) for path in paths]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert all(one != other for one, other in itertools.combinations(seeds, 2))


def test_generators_of_one_path_draw_the_same():
    first, again, other = (torch.randn(4, generator=generator(1, purpose)) for purpose in ("rows", "rows", "other"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
