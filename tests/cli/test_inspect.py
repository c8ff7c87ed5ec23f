"""fedloom inspect on each kind of task: nothing is trained, nothing is written but what was asked for."""

import json
import re

import pytest

from fedloom.testing.federation import tiny_federation


def words(text):
    return " ".join(re.sub("[│┃]", " ", text).split())


@pytest.fixture
def inspected(fedloom, tmp_path):
    """inspected(task, extra="", *options) -> the JSON that was printed."""

    def found(task, extra="", *options, **more):
        pilot = tiny_federation(tmp_path / task, task=task, rows=60, ranks=(4, 4, 4), extra=extra, **more)
        outcome = fedloom("inspect", pilot, "--json", *options)
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return found


@pytest.mark.parametrize("task", ["classification", "image-classification"])
def test_clients_with_the_same_labels_are_alike(inspected, task):
    found = inspected(task)
    assert (found["score"], found["shared"]) == (0.0, [])
    assert [(one["rows"], one["counts"]) for one in found["clients"]] == [(60, [30, 30])] * 3
    assert "The clients are alike" in found["advice"][0]
    assert "fingerprints" not in json.dumps(found["clients"])


def test_texts_are_compared_by_their_words(inspected):
    found = inspected("generation")
    assert 0.05 < found["score"] < 1
    assert found["distances"][0][1] < found["distances"][0][2], "site 0 and 1 share a topic, site 0 and 2 none"


def test_clients_with_labels_of_their_own_and_rows_in_common_are_found_out(fedloom, tmp_path):
    pilot = tiny_federation(tmp_path, task="classification", rows=60, ranks=(4, 4))
    even, odd = ([json.dumps({"text": f"row {n}", "label": name}) for n in range(60)] for name in ("even", "odd"))
    (tmp_path / "site-0.jsonl").write_text("\n".join(even))
    (tmp_path / "site-1.jsonl").write_text("\n".join(odd))
    outcome = fedloom("inspect", pilot, "--html", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    said = words(outcome.out)
    assert "Non-IID score 1.000, from 0 (all alike) to 1 (nothing in common)" in said
    assert "rows in common: site-0 and site-1, 60" in said
    assert "site-0 is skewed: 100% of its rows are 'even'" in said
    assert "salted fingerprints of all rows were compared" in said
    page = (tmp_path / "page.html").read_text()
    assert "Non-IID score 1.000" in page
    assert "chart-inspect" in page
    assert "To look at" in page
    assert not (tmp_path / "runs").exists()


PRIVATE = '\n[privacy]\nunit = "example"\nepsilon = 8\ndelta = 1e-3\n'


def test_where_rows_are_protected_noise_is_added_and_declared(inspected):
    found = [inspected("classification", PRIVATE, method="ffa") for _ in range(2)]
    assert found[0]["clients"] != found[1]["clients"]
    for one in found:
        assert {client["epsilon"] for client in one["clients"]} == {1.0}
        assert one["shared"] is None
        assert "epsilon 1 for each row at its client" in one["privacy"]
        assert "no ledger has it" in one["privacy"]


def test_noise_can_be_asked_for(inspected):
    found = inspected("classification", "", "--epsilon", "1000")
    assert {client["epsilon"] for client in found["clients"]} == {1000.0}
    assert found["score"] == pytest.approx(0, abs=0.01)


def test_a_promise_to_whole_clients_is_said_not_to_cover_this(inspected):
    unit = '\n[privacy]\nunit = "client"\nnoise_multiplier = 1.0\ndelta = 1e-2\n\n[rounds]\nweighting = "uniform"\n'
    assert "The promise does not cover them" in inspected("classification", unit, method="ffa")["privacy"]


def test_canaries_are_no_rows_of_a_client(inspected):
    assert [one["rows"] for one in inspected("generation", "\n[privacy]\ncanaries = 9\n")["clients"]] == [60] * 3


@pytest.mark.parametrize("options", [["--epsilon", "0"], ["--epsilon", "nan"]])
def test_no_epsilon_is_refused(fedloom, tmp_path, options):
    outcome = fedloom("inspect", tiny_federation(tmp_path), *options)
    assert outcome.code == 2
    assert "epsilon has to be above 0" in words(outcome.err)


@pytest.mark.parametrize("name", ["pilot.toml", "site-0.jsonl"])
def test_a_page_does_not_replace_what_is_none(fedloom, tmp_path, name):
    pilot = tiny_federation(tmp_path)
    before = (tmp_path / name).read_bytes()
    outcome = fedloom("inspect", pilot, "--html", tmp_path / name)
    assert (outcome.code, "expected a name that ends in .html" in words(outcome.err)) == (2, True)
    assert (tmp_path / name).read_bytes() == before


def test_rows_that_cannot_be_read_are_all_named(fedloom, tmp_path):
    pilot = tiny_federation(tmp_path)
    for site in (0, 2):
        (tmp_path / f"site-{site}.jsonl").unlink()
    outcome = fedloom("inspect", pilot)
    assert outcome.code == 2
    assert "2 problems" in outcome.err
    assert "Traceback" not in outcome.err
