"""From journal to summary."""

import math

import pytest

from fedloom.report.summary import summarise
from fedloom.report.tables import client_table


def test_a_finished_run(experiment, journal):
    run = summarise(experiment, journal)
    assert (run.name, run.method, run.model, run.dtype, run.modules) == ("trial", "loom", "tiny", "float32", 7)
    assert (run.committed_rounds, run.planned_rounds, run.federated_round) == (2, 2, 2)
    assert (run.seconds, run.round_seconds, run.peak_memory_bytes, run.adapter) == (
        75.0,
        10.0,
        1_500_000_000,
        "adapter",
    )
    assert (run.bytes_up, run.bytes_down) == (12_000, 24_000)
    assert [stage.pooled.loss for stage in run.stages.values()] == [3.5, pytest.approx(2.7), 2.5]
    assert list(run.stages) == ["base", "alone", "federated"]
    assert [(answer.before, answer.after) for answer in run.answers] == [("No idea.", "The sky.")]
    assert run.unknown == {}


def test_clients_add_up_over_rounds(experiment, journal):
    north, south = summarise(experiment, journal).clients
    assert (north.name, north.rank, north.scaling, north.train_rows) == ("north", 8, 2.0, 90)
    assert (south.bytes_down, south.bytes_up, south.seconds, south.tokens) == (8_000, 4_000, 4.0, 800)
    assert (south.contributions, south.per_second) == (2, 200.0)


def test_rounds_begin_with_the_base(experiment, journal):
    rounds = summarise(experiment, journal).rounds
    assert [entry.number for entry in rounds] == [0, 1, 2]
    assert [entry.scores.pooled.loss for entry in rounds] == [3.5, 3.0, 2.5]
    assert rounds[0].scores.worst[0] == "south"
    assert dict(rounds[1].training_loss) == pytest.approx({"north": 2.8, "south": 2.8})
    assert rounds[2].details == {"loom.compression_error": 0.25}


def test_every_beginning_of_a_journal_can_be_summarised(experiment, journal):
    for length in range(len(journal)):
        run = summarise(experiment, journal[:length])
        assert run.finished is None
        assert len(run.clients) == 2
        assert run.committed_rounds == sum(record["kind"] == "round_committed" for record in journal[:length])


def test_while_running_federated_is_the_last_measured_round(experiment, journal):
    beginning = [
        record for record in journal if record.get("stage") not in ("final", "alone") and record.get("round") != 2
    ]
    run = summarise(experiment, beginning)
    assert (run.federated_round, run.federated.pooled.loss) == (1, 3.0)
    assert "alone" not in run.stages


def test_without_any_record_the_experiment_speaks(experiment):
    run = summarise(experiment, [])
    assert (run.name, run.method, [client.rank for client in run.clients]) == ("trial", "loom", [8, 4])
    assert run.base.pooled is None
    assert run.base.worst is None


def test_unknown_kinds_are_counted_and_change_nothing(experiment, journal):
    plain = summarise(experiment, journal)
    strange = [{"kind": "weather", "round": 99, "client": "nobody"}, {"kind": "weather"}, {}]
    odd = summarise(experiment, [*journal, *strange])
    assert odd.unknown == {"None": 1, "weather": 2}
    assert (odd.rounds, odd.clients) == (plain.rounds, plain.clients)


def test_an_evaluation_without_its_counts_is_left_out_and_counted(experiment, journal):
    journal.add("evaluation", stage="final", round=2, client="north", loss=9.0)
    run = summarise(experiment, journal)
    assert run.federated.clients["north"].loss == 2.0
    assert run.unknown == {"evaluation without a loss or its counts": 1}


def test_refused_contributions_and_dropouts_are_events_of_their_client(experiment, journal):
    journal.add("refused", round=1, client="south", module="q_proj", reason="not finite")
    journal.add("dropout", round=2, client="south", reason="silent")
    run = summarise(experiment, journal)
    assert [(event.kind, event.module, event.reason) for event in run.events] == [
        ("refused", "q_proj", "not finite"),
        ("dropout", None, "silent"),
    ]
    assert [(client.refused, client.dropouts) for client in run.clients] == [(0, 0), (1, 1)]


def test_a_round_done_again_after_a_resume_counts_once(experiment, journal):
    journal.add("resumed", round=1)
    journal.add("contribution", round=2, client="south", bytes_up=10, seconds=1.0, loss=1.0)
    run = summarise(experiment, journal)
    assert run.resumed
    assert run.clients[1].contributions == 2
    assert run.clients[1].bytes_up == 4_010
    assert run.rounds[2].training_loss["south"] == 1.0


def test_a_diverged_client_is_the_worst_and_shows_in_the_pooled_loss(experiment, journal):
    journal.add("evaluation", stage="final", round=2, client="north", loss=None, not_finite={"loss": "nan"},
                label_tokens=100, rows=10)  # fmt: skip
    federated = summarise(experiment, journal).federated
    assert federated.worst[0] == "north"
    assert math.isnan(federated.pooled.loss)


def test_a_client_left_out_whose_rank_nobody_planned_has_none(experiment, journal):
    north, south = experiment.clients
    late = south.model_copy(update={"name": "late", "rank": "auto"})
    experiment = experiment.model_copy(update={"clients": (north, south, late)})
    run = summarise(experiment, journal)
    assert [client.rank for client in run.clients][-1] is None
    assert "late" in map(str, client_table(run).columns[0].cells)  # and it can be shown


def test_what_was_rolled_back_is_no_result_and_was_spent(experiment, journal):
    run = summarise(experiment, [*journal, {"kind": "rolled_back", "round": 1, "reason": "odd"}])
    assert (run.committed_rounds, run.federated_round, run.digest, run.adapter) == (1, 1, None, None)
    assert [entry.number for entry in run.rounds] == [0, 1]
    assert run.bytes_up == summarise(experiment, journal).bytes_up
    assert [(event.kind, event.round, event.reason) for event in run.events][-1] == ("rolled_back", 1, "odd")
