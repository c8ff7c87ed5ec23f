"""Rounds with secure aggregation: the run of plain sums up to rounding, and the server has no client's numbers."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.algebra import norm, subtract
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.engine.drive import drive
from fedloom.engine.identities import Identities
from fedloom.engine.masked_half import masked_answer
from fedloom.errors import RunError
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment

SUMMING = [name for name, method in METHODS.items() if method.reveals != "individuals"]


def experiment_of(method="rbla", *, secure=True, threshold=None, bound=50.0, **rounds):
    plain = pretend_experiment(method, rounds={"max_update_norm": bound, **rounds})
    table = SecureAggregationTable(enabled=secure, threshold=threshold if secure else None)
    return plain.model_copy(update={"secure_aggregation": table})


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


@pytest.mark.parametrize("method", SUMMING)
def test_a_secure_run_is_the_plain_run_up_to_rounding(method, make_loop):
    plain = drive(make_loop(experiment_of(method, secure=False), name="plain"))
    loop = make_loop(experiment_of(method), name="secure")
    secure = drive(loop)
    assert torch.equal(plain.head["score.weight"], secure.head["score.weight"])
    size = norm(plain.learned.delta())
    assert norm(subtract(secure.learned.delta(), plain.learned.delta())) <= 2e-5 * size
    assert size > 0.1 or METHODS[method].personal  # test_own_adapters compares the models of fedalt
    assert [(record["clients"], record["lost"]) for record in kinds(loop, "secure_sum")] == [(list(NAMES), [])] * 4
    assert not kinds(loop, "dropout")
    assert secure.last_rounds == plain.last_rounds


LARGE = {"layers.0.q_proj": (70, 60), "layers.1.v_proj": (12, 60)}


@pytest.mark.parametrize("method", ["loom", "flexlora", "flora", "fedex"])
def test_products_of_unequal_ranks_are_exact_by_sketches(method, make_loop):
    """One round: in later ones the pretended training tells a direction from its negative, which sketches do not."""
    plain = drive(
        make_loop(experiment_of(method, secure=False), PretendEngine(NAMES, LARGE), name="plain", last_round=1)
    )
    secure = drive(make_loop(experiment_of(method), PretendEngine(NAMES, LARGE), name="secure", last_round=1))
    size = norm(plain.learned.delta())
    assert size > 0.1
    assert norm(subtract(secure.learned.delta(), plain.learned.delta())) < 1e-6 * size
    loop = make_loop(experiment_of(method), PretendEngine(NAMES, LARGE), name="longer")
    drive(loop)
    errors = [record["sketch_error"] for record in kinds(loop, "secure_sum")]
    assert len(errors) == 4
    assert max(errors) < 1e-6


def test_a_narrow_sketch_reports_what_it_misses(make_loop):
    narrow = experiment_of("flexlora")
    secure = SecureAggregationTable(enabled=True, sketch_width=2)
    narrow = narrow.model_copy(update={"secure_aggregation": secure})
    loop = make_loop(narrow, PretendEngine(NAMES, LARGE), name="narrow", last_round=1)
    state = drive(loop)
    plain = make_loop(experiment_of("flexlora", secure=False), PretendEngine(NAMES, LARGE), name="plain", last_round=1)
    whole = drive(plain).learned.delta()
    true = norm(subtract(state.learned.delta(), whole)) / norm(whole)
    [record] = kinds(loop, "secure_sum")
    assert true > 0.1
    assert 0.4 < record["sketch_error"] / true < 2.5


def test_nothing_of_a_clients_numbers_reaches_the_server_openly(make_loop):
    seen = []

    class Listening(PretendEngine):
        def exchange(self, assignments):
            for answer in super().exchange(assignments):
                seen.append(answer)
                yield answer

    loop = make_loop(experiment_of(), Listening(NAMES))
    drive(loop)
    trained = [reply.contribution for reply in seen if reply.assignment.kind == "train"]
    assert len(trained) == 12
    assert all(not (one.adapter or one.head or one.examples) for one in trained)
    records = kinds(loop, "contribution")
    assert len(records) == 12
    assert all("update_norm" not in record.fields and "examples" not in record.fields for record in records)
    assert all(record["bytes_up"] > 8 * 141 for record in records)  # the masked words count as traffic


@pytest.mark.parametrize("step", [ROSTER, DELIVERY, SURVIVORS, AGREEMENT])
def test_a_client_that_goes_away_is_recovered_and_journaled(step, make_loop):
    """After the masked numbers arrived it is in the sum; before, it is out of it."""
    engine = PretendEngine(NAMES, silent=frozenset({("b", step)}))
    loop = make_loop(experiment_of(), engine, name="secure")
    state = drive(loop)
    inside = step in (SURVIVORS, AGREEMENT)
    present = list(NAMES) if inside else ["a", "c"]
    assert [record["clients"] for record in kinds(loop, "secure_sum")] == [present] * 4
    assert {record["client"] for record in kinds(loop, "dropout")} == {"b"}
    assert f"secure sum, {step}: it went away" in kinds(loop, "dropout")[0]["reason"]
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [len(present)] * 4
    without = experiment_of(secure=False) if inside else experiment_of(secure=False, clients=("a", "c"))
    plain = drive(make_loop(without, name="plain"))
    delta = plain.learned.delta()
    if inside:
        assert norm(subtract(state.learned.delta(), delta)) < 1e-5 * norm(delta)
    assert set(state.last_rounds) == set(present)


def test_below_the_threshold_the_round_fails_and_the_run_goes_on_from_there(make_loop):
    experiment = experiment_of(threshold=3)
    loop = make_loop(experiment, PretendEngine(NAMES, silent=frozenset({("b", DELIVERY)})))
    with pytest.raises(RunError, match=r"masked numbers: too few clients.*nothing was revealed.*at least 3 of 3"):
        drive(loop)
    assert loop.directory.latest() == 0
    assert not kinds(loop, "contribution")
    loop.directory.close()
    again = make_loop(experiment)
    undisturbed = drive(make_loop(experiment, name="undisturbed"))
    assert drive(again).learned.delta().digest() == undisturbed.learned.delta().digest()


def poisoned(client, change):
    return lambda assignment, sent: change(sent) if (assignment.client, assignment.kind) == (client, "train") else sent


def test_an_update_beyond_the_bound_is_refused_at_its_client(make_loop):
    def larger(sent):
        def grown(_, factors):
            return Factors(factors.a * 40, factors.b * 40, factors.scaling)

        return replace(sent, adapter=sent.adapter.map(grown))

    loop = make_loop(experiment_of(), PretendEngine(NAMES, change=poisoned("b", larger)))
    drive(loop)
    reasons = [record["reason"] for record in kinds(loop, "dropout")]
    assert len(reasons) == 4
    assert all("client 'b'" in reason and "too large" in reason for reason in reasons)
    assert not any("found" in reason for reason in reasons), "the number would tell of one client"


def test_a_number_beyond_fixed_point_is_refused_at_its_client(make_loop):
    def wide(sent):
        return replace(sent, head={name: tensor + 1e4 for name, tensor in sent.head.items()})

    loop = make_loop(experiment_of(), PretendEngine(NAMES, change=poisoned("c", wide)))
    drive(loop)
    reasons = [record["reason"] for record in kinds(loop, "dropout")]
    assert all("client 'c': a number is beyond the bound of secure aggregation" in reason for reason in reasons)
    assert not any("found" in reason for reason in reasons), "the number would tell of one client"
    assert len(reasons) == 4


def test_a_client_that_sends_its_numbers_openly_is_refused(make_loop):
    class Open(PretendEngine):
        def exchange(self, assignments):
            for answer in super().exchange(assignments):
                assignment = answer.assignment
                if (assignment.client, assignment.kind) != ("a", "train"):
                    yield answer
                    continue
                shown = replace(answer.contribution, adapter=assignment.start.trainable)
                yield replace(answer, contribution=shown)

    loop = make_loop(experiment_of(), Open(NAMES))
    drive(loop)
    assert {record["client"] for record in kinds(loop, "refused")} == {"a"}
    assert "what was to be masked was sent as it is" in kinds(loop, "refused")[0]["reason"]
    assert [record["clients"] for record in kinds(loop, "secure_sum")] == [["b", "c"]] * 4


def test_a_client_whose_masked_numbers_are_cut_short_is_refused_by_name(make_loop):
    class Short(PretendEngine):
        def relay(self, asked):
            for ask, answer in super().relay(asked):
                yield ask, answer[:-3] if (ask.client, ask.step) == ("a", DELIVERY) else answer

    loop = make_loop(experiment_of(), Short(NAMES))
    drive(loop)
    assert {record["client"] for record in kinds(loop, "refused")} == {"a"}
    assert "bytes, not" in kinds(loop, "refused")[0]["reason"]
    assert [record["lost"] for record in kinds(loop, "secure_sum")] == [["a"]] * 4


@pytest.mark.parametrize("step", [ROSTER, SURVIVORS, AGREEMENT])
def test_an_answer_that_is_no_message_is_refused_by_name(step, make_loop):
    class Nonsense(PretendEngine):
        def relay(self, asked):
            for ask, answer in super().relay(asked):
                yield ask, b"{}" if (ask.client, ask.step) == ("a", step) else answer

    loop = make_loop(experiment_of(), Nonsense(NAMES))
    drive(loop)
    assert {record["client"] for record in kinds(loop, "refused")} == {"a"}
    assert len(kinds(loop, "round_committed")) == 4


def test_part_of_the_clients_is_enough_where_the_threshold_allows_it(make_loop):
    loop = make_loop(experiment_of(participation=0.6))
    drive(loop)
    assert [len(record["clients"]) for record in kinds(loop, "secure_sum")] == [2] * 4
    assert [record["threshold"] for record in kinds(loop, "secure_sum")] == [2] * 4


def test_a_peer_that_is_another_than_before_is_refused_by_name(make_loop):
    """Client a remembers another b: it takes no part, as somebody may stand in between."""
    loop = make_loop(experiment_of(threshold=2))
    Identities.of(loop.directory.clients, "a").remember({"b": b"\x09" * 32})
    drive(loop)
    reasons = [(record["client"], record["reason"]) for record in kinds(loop, "dropout")]
    assert {client for client, _ in reasons} == {"a"}
    assert "client 'b': it has another identity than before" in reasons[0][1]
    assert [record["clients"] for record in kinds(loop, "secure_sum")] == [["b", "c"]] * 4


def test_a_process_that_did_not_train_says_so():
    with pytest.raises(RunError, match="this client is in no secure sum"):
        masked_answer({}, "a", DELIVERY, b"", None)
