"""Vectors that are added give the tally that folding gives, whatever the method and the ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm, subtract
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.summand import total
from fedloom.aggregation.world import ClientFacts, RoundFacts
from fedloom.errors import RunError
from fedloom.planning.importance import combined, scaled, unknown
from fedloom.rounds.assign import masking_of, training_assignment
from fedloom.rounds.masking import fixed_point_of, layout_of, terms_of, to_tally, to_vector
from fedloom.rounds.messages import Contribution
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, step
from fedloom.rounds.wire import assignment_from_bytes, assignment_to_bytes
from fedloom.rounds.world import world_of
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import NAMES, pretend_experiment
from tests.rounds.answers import learned

MODULES = {"large": (60, 50), "small": (8, 10)}  # one is sketched, the other smaller as it is
SUMMING = [name for name, method in METHODS.items() if method.reveals != "individuals"]
ROWS = {"a": 3, "b": 50, "c": 7}


def round_of(name, weighting="examples", lacks=None, importance=False):
    """Method, world, state, and what each client was asked and answers. lacks: client -> a module it does not train."""
    rounds, training = {"max_update_norm": 100.0, "weighting": weighting}, {"importance": importance}
    experiment = pretend_experiment(name, rounds=rounds, training=training)
    clients = [
        client.model_copy(
            update={"rank_pattern": {(lacks or {})[client.name]: 0} if client.name in (lacks or {}) else {}}
        )
        for client in experiment.clients
    ]
    update = {"secure_aggregation": SecureAggregationTable(enabled=True), "clients": tuple(clients)}
    experiment = experiment.model_copy(update=update)
    method, world = METHODS[name], world_of(experiment, MODULES)
    state = RunState(method.init(world), {"score.weight": torch.zeros(2, 3)})
    masking = masking_of(experiment, world, NAMES, ROWS, bytes(32))
    asked = [training_assignment(experiment, method, world, state, client, masking) for client in NAMES]
    return method, world, state, [(assignment, trained(assignment)) for assignment in asked]


def trained(assignment):
    draw = torch.Generator().manual_seed(assignment.seed)
    adapter, head = learned(assignment, draw)
    total = assignment.work.importance
    scores = {module: 0.1 + float(torch.rand((), generator=draw)) for module in assignment.trained_modules}
    importance = {} if total is None else scaled(scores, total)
    return Contribution(1, assignment.client, ROWS[assignment.client], {}, adapter, head, importance=importance)


def encoded(fixed, layout, answers):
    """The sum of what clients send, made with what they are told, and no more."""
    words = np.zeros(layout.length, dtype=np.uint64)
    for assignment, contribution in answers:
        arrived = assignment_from_bytes(assignment_to_bytes(assignment))
        words += fixed.encode(to_vector(contribution, arrived), assignment.client)
    return words


LACKS = {
    "all train all": {},
    "some lack some": {"a": "large", "b": "small"},
    "none trains one": dict.fromkeys(NAMES, "small"),
}


@pytest.mark.parametrize("lacks", LACKS.values(), ids=LACKS)
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("name", SUMMING)
def test_the_sum_of_vectors_is_the_fold_of_contributions(name, weighting, lacks):
    method, world, state, answers = round_of(name, weighting, lacks)
    folded = Tally()
    for assignment, contribution in answers:
        folded = fold(folded, method, world, assignment, contribution, weighting)
    masking = answers[0][0].masking
    fixed, layout = fixed_point_of(masking), layout_of(masking, answers[1][0])
    words = encoded(fixed, layout, answers)
    summed, missed = to_tally(fixed.decode(words), layout, NAMES)
    assert missed < 1e-6
    assert summed.weight == folded.weight == (3.0 if weighting == "uniform" else 60.0)
    plain, secure = (step(tally, method, world, state) for tally in (folded, summed))
    assert torch.allclose(plain.head["score.weight"], secure.head["score.weight"], atol=1e-6)
    assert secure.last_rounds == plain.last_rounds
    # What clients borrow from the others comes as a mean of all.
    wanted, found = (state.learned.rests.get("", state.learned.delta()) for state in (plain, secure))
    size = norm(wanted)
    assert norm(subtract(found, wanted)) <= 1e-5 * size
    assert size > 0.1 or name == "fedsa"  # whose clients keep b
    for module, factors in plain.learned.shared.items():
        assert secure.learned.shared[module].a.dtype == factors.a.dtype
        if method.reveals == "sum":
            assert torch.allclose(secure.learned.shared[module].a, factors.a, atol=1e-6)


@pytest.mark.parametrize("name", ["loom", "flexlora", "flora", "fedex"])
def test_what_such_a_method_makes_of_a_stack_depends_on_its_delta_alone(name):
    """So that the factors of a sketch can take the place of the clients'."""
    method, world, state, answers = round_of(name)
    facts = [ClientFacts(world, asked.client, 1, asked.start) for asked, _ in answers]
    summed = total(method.lift(one.adapter, 5.0, fact) for (_, one), fact in zip(answers, facts, strict=True))
    turn = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(1)))[0]

    def turned(_, factors):
        part = torch.linalg.qr(turn[: factors.rank, : factors.rank])[0].to(factors.a)
        return Factors(part @ factors.a, factors.b @ part.T, factors.scaling)

    other = replace(summed, stack=summed.stack.map(turned))
    assert not any(torch.equal(other.stack[module].a, factors.a) for module, factors in summed.stack.items())
    round_facts = RoundFacts(world, 1, NAMES)
    before, after = (method.finish(one, state.learned, round_facts).delta() for one in (summed, other))
    assert norm(subtract(before, after)) < 1e-5 * norm(before)


@pytest.mark.parametrize("name", SUMMING)
def test_all_clients_have_one_layout_and_so_one_set_of_terms(name):
    _, _, _, answers = round_of(name)
    tags = {terms_of(assignment.masking, layout_of(assignment.masking, assignment)).tag for assignment, _ in answers}
    lengths = {len(to_vector(contribution, assignment)) for assignment, contribution in answers}
    assert len(tags) == len(lengths) == 1


@pytest.mark.parametrize("name", SUMMING)
def test_a_module_that_nobody_of_the_round_trained_keeps_what_it_had(name):
    """Its owner dropped out after the masks were made: its weight in the sum is zero."""
    method, world, state, answers = round_of(name, lacks={"a": "small", "b": "small"})
    masking = answers[0][0].masking
    layout = layout_of(masking, answers[0][0])
    vector = sum(to_vector(contribution, assignment) for assignment, contribution in answers[:2])
    tally, _ = to_tally(vector, layout, ("a", "b"))
    before, after = state.learned.delta(), step(tally, method, world, state).learned.delta()
    assert "small" not in after or norm(subtract(after, before)) == norm(
        subtract(Adapter({"large": after["large"]}), Adapter({m: f for m, f in before.items() if m == "large"}))
    )


def test_a_module_outside_the_sum_is_refused():
    _, _, _, [(assignment, contribution), *_] = round_of("loom", lacks=dict.fromkeys(NAMES, "small"))
    extra = contribution.adapter.updated({"small": Factors(torch.ones(1, 10), torch.ones(8, 1))})
    started = replace(assignment, start=replace(assignment.start, trainable=extra))
    with pytest.raises(RunError, match="not in the secure sum"):
        to_vector(replace(contribution, adapter=extra), started)


def test_a_method_that_stacks_is_refused():
    _, _, _, [(assignment, contribution), *_] = round_of("fedit")
    stacking = replace(assignment, masking=replace(assignment.masking, method="raflora"))
    with pytest.raises(RunError, match="what clients of raflora add is more than a sum"):
        to_vector(contribution, stacking)


def test_the_bound_leaves_room_for_the_largest_client():
    masking = round_of("fedit")[3][0][0].masking
    fixed = fixed_point_of(masking)
    assert (fixed.largest, fixed.clients) == (50 * 100.0, 3)
    assert fixed_point_of(replace(masking, max_update_norm=0.1)).largest == 50.0 * 2  # ranks have room too


def test_a_sum_that_too_few_clients_make_is_never_opened():
    """The threshold is at least rounds.min_clients: a round that would fail later reveals nothing before."""
    experiment = pretend_experiment("fedit", rounds={"max_update_norm": 1.0, "min_clients": 3})
    experiment = experiment.model_copy(update={"secure_aggregation": SecureAggregationTable(enabled=True)})
    masking = masking_of(experiment, world_of(experiment, MODULES), NAMES, ROWS, bytes(32))
    assert (experiment.secure_aggregation.threshold_of(3), masking.threshold) == (2, 3)
    off = experiment.model_copy(update={"secure_aggregation": SecureAggregationTable()})
    assert masking_of(off, world_of(off, MODULES), NAMES, ROWS, bytes(32)) is None


@pytest.mark.parametrize("lacks", LACKS.values(), ids=LACKS)
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_importance_is_part_of_the_sum(weighting, lacks):
    """What the server knows of it is what it would know of the clients' scores, with rounding below 1e-9."""
    method, world, _, answers = round_of("loom", weighting, lacks, importance=True)
    answers[1] = (answers[1][0], replace(answers[1][1], importance={}))  # one that measured nothing
    folded = Tally()
    for assignment, contribution in answers:
        folded = fold(folded, method, world, assignment, contribution, weighting)
    masking = answers[0][0].masking
    fixed, layout = fixed_point_of(masking), layout_of(masking, answers[1][0])
    words = encoded(fixed, layout, answers)
    summed = to_tally(fixed.decode(words), layout, NAMES)[0].importance
    assert summed.means() == pytest.approx(folded.importance.means(), abs=1e-9)
    plain, secure = (combined(each, unknown(MODULES)) for each in (folded.importance, summed))
    assert secure.shares == pytest.approx(plain.shares, abs=1e-9)
    assert secure.assumed == plain.assumed == (("small",) if len(lacks) == 3 else ())
    assert len(set(plain.shares.values())) == (1 if len(lacks) == 3 else 2)


def test_vectors_without_importance_are_as_they_were():
    _, _, _, answers = round_of("loom")
    _, _, _, measuring = round_of("loom", importance=True)
    lengths = [len(to_vector(pairs[0][1], pairs[0][0])) for pairs in (answers, measuring)]
    assert lengths[1] == lengths[0] + 2 * len(MODULES)
