"""Ranks and scalings of each client in each module, and ranks that cannot be."""

import pytest

from fedloom.errors import ConfigError
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import ClientTable, Experiment, LoraTable

MODULES = {"layers.0.q_proj": (6, 8), "layers.0.mlp.down_proj": (4, 8), "layers.10.q_proj": (6, 8)}


def slots(lora=None, **client):
    table = ClientTable(name="a", data="a.jsonl", **client)
    experiment = Experiment(clients=(table,), lora=lora or LoraTable())
    return world_of(experiment, MODULES).slots["a"]


def test_scaling_is_one_for_all_ranks_or_alpha_over_rank():
    assert slots(rank=4)["layers.0.q_proj"].scaling == 2.0
    assert slots(rank=4, lora=LoraTable(alpha=16.0))["layers.0.q_proj"].scaling == 4.0


def test_the_longest_pattern_that_is_a_dotted_suffix_wins():
    ranks = slots(rank=1, rank_pattern={"q_proj": 2, "10.q_proj": 3})
    found = {module: slot.rank for module, slot in ranks.items()}
    assert found == {"layers.0.q_proj": 2, "layers.0.mlp.down_proj": 1, "layers.10.q_proj": 3}


def test_a_pattern_is_not_matched_inside_a_name():
    with pytest.raises(ConfigError, match="rank_pattern 'proj' fits no module"):
        slots(rank=1, rank_pattern={"proj": 4})


def test_a_rank_larger_than_the_layer_names_client_and_module():
    with pytest.raises(ConfigError, match=r"client 'a', module 'layers.0.mlp.down_proj'.*at most 4, found 5"):
        slots(rank=5)


def test_all_problems_are_listed_at_once():
    clients = tuple(ClientTable(name=name, data="x.jsonl", rank=99) for name in "abc")
    with pytest.raises(ConfigError) as error:
        world_of(Experiment(clients=clients), MODULES)
    assert len(error.value.problems) == 3


def test_a_rank_of_zero_leaves_the_layers_out():
    assert "layers.10.q_proj" not in slots(rank=1, rank_pattern={"10.q_proj": 0})
    assert slots(rank=1, rank_pattern={"10.q_proj": 0}).keys() < slots(rank=1).keys()


def test_a_client_that_trains_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"trains nothing, as its rank is 0 in every module.*expected at least 1"):
        slots(rank=1, rank_pattern={"q_proj": 0, "down_proj": 0})


def test_a_branch_draws_by_another_seed_and_no_branch_by_the_runs(experiment):
    worlds = [world_of(experiment, MODULES, branch) for branch in (0, 1, 2)]
    assert worlds[0].round_seed == experiment.seed
    assert len({world.round_seed for world in worlds}) == 3
    assert {world.seed for world in worlds} == {experiment.seed}
