"""Wrong, tampered and replayed messages: each an error that names who is at fault; nobody reveals both shares."""

import json

import pytest

from fedloom.errors import AdapterError, ContributionRefusedError, RunError
from fedloom.privacy.secagg.client import check_roster
from fedloom.privacy.secagg.messages import Roster, Survivors
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS
from tests.privacy.secagg.whole_sum import WholeSum, plain_sum, terms_of, words_of

WORDS = words_of(4, 6)
TERMS = terms_of(WORDS, 3)


def changed(step, client, edit):
    """A change of one client's message of one step; edit works on the JSON in place."""

    def change(found_step, found_client, body):
        if (found_step, found_client) != (step, client):
            return body
        message = json.loads(body)
        edit(message)
        return json.dumps(message).encode()

    return change


def flipped(text):
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def tampered(kind, dealer):
    def edit(message):
        message[kind][dealer] = flipped(message[kind][dealer])

    return edit


def test_a_share_that_was_changed_on_its_way_names_the_dealer():
    whole = WholeSum(TERMS, WORDS, down=changed(DELIVERY, "c02", tampered("sealed", "c01")))
    with pytest.raises(ContributionRefusedError, match="client 'c01': its shares are of another secure sum") as caught:
        whole.run()
    assert caught.value.client == "c01"


def test_shares_of_an_earlier_sum_are_refused_by_the_dealers_name():
    before = WholeSum(TERMS, WORDS, seed=1)
    before.run()
    old = json.loads(before.seen[ROSTER, "c01"])["sealed"]["c02"]

    def replay(message):
        message["sealed"]["c01"] = old

    again = WholeSum(terms_of(WORDS, 3, round_id=b"\x01" * 32), WORDS, seed=2, down=changed(DELIVERY, "c02", replay))
    with pytest.raises(ContributionRefusedError, match="client 'c01': its shares are of another secure sum"):
        again.run()


def test_keys_of_an_earlier_sum_are_refused_by_the_clients_name():
    before = WholeSum(TERMS, WORDS, seed=1)
    kept = {}
    before.up = lambda step, client, body: kept.setdefault((step, client), body)
    before.run()

    def replayed(step, client, body):
        return kept[step, client] if (step, client) == ("advertise", "c01") else body

    again = WholeSum(terms_of(WORDS, 3, round_id=b"\x01" * 32), WORDS, seed=2, up=replayed)
    result = again.run()
    assert result.clients == ("c00", "c02", "c03")
    assert [(fault.client, "not signed for this secure sum" in str(fault)) for fault in result.faults] == [
        ("c01", True)
    ]


def test_a_dealer_whose_shares_are_not_what_it_committed_to_is_named():
    def edit(message):
        message["commitments"]["c03"]["seed_share"] = "00" * 32

    with pytest.raises(ContributionRefusedError, match="client 'c01': its shares are not those that it committed to"):
        WholeSum(TERMS, WORDS, up=changed(ROSTER, "c01", edit)).run()


@pytest.mark.parametrize("kind", ["seeds", "masks"])
def test_a_wrong_revealed_share_names_its_holder_and_the_others_suffice(kind):
    edit = tampered(kind, "c03" if kind == "masks" else "c01")
    words = words_of(5, 6)
    gone = {2: ["c03"]} if kind == "masks" else {}
    result = WholeSum(terms_of(words, 3), words, gone, up=changed(AGREEMENT, "c02", edit)).run()
    assert (result.words == plain_sum(words, result.clients)).all()
    assert [fault.client for fault in result.faults] == ["c02"]
    assert "its share of a secret of" in str(result.faults[0])


def test_revealed_shares_of_an_earlier_sum_name_their_holder():
    before = WholeSum(TERMS, WORDS, seed=1)
    before.run()
    old = before.seen[AGREEMENT, "c00"]

    def replayed(step, client, body):
        return old if (step, client) == (AGREEMENT, "c00") else body

    result = WholeSum(terms_of(WORDS, 3, b"\x02" * 32), WORDS, seed=2, up=replayed).run()
    assert [fault.client for fault in result.faults] == ["c00"]
    assert (result.words == plain_sum(WORDS, WORDS)).all()


def test_too_many_wrong_shares_end_the_round_with_their_names():
    def wrong(step, client, body):
        return changed(AGREEMENT, client, tampered("seeds", "c01"))(step, client, body) if client > "c01" else body

    with pytest.raises(RunError, match=r"revealed shares: too few.*client 'c02'.*client 'c03'"):
        WholeSum(TERMS, WORDS, up=wrong).run()


def test_a_dealer_whose_secrets_do_not_fit_is_named():
    def edit(message):
        message["seed"] = "11" * 32

    with pytest.raises(ContributionRefusedError, match="client 'c01': the shares that it dealt do not give the seed"):
        WholeSum(TERMS, WORDS, up=changed(ROSTER, "c01", edit)).run()


def test_a_server_that_tells_two_sets_of_survivors_learns_nothing():
    """Two clients are told that c01 was lost, the others that all survived; none reveals."""
    fewer = Survivors(clients=("c00", "c02", "c03")).to_bytes()

    def told(step, client, body):
        return fewer if step == SURVIVORS and client in ("c02", "c03") else body

    whole = WholeSum(TERMS, WORDS, down=told)
    with pytest.raises(
        RunError, match=r"signatures: too few clients.*nothing was revealed.*client 'c02'.*client 'c03'"
    ):
        whole.run()
    signatures = {client: json.loads(whole.seen[SURVIVORS, client])["signature"] for client in WORDS}
    for asked, (offered, message) in {
        "c00": (("c00", "c01", "c02"), "client 'c02': it did not sign the survivors"),
        "c01": (("c00", "c01"), "signatures: too few clients"),
        "c02": (("c00", "c02", "c03"), "client 'c00': it did not sign the survivors"),
        "c03": (("c01", "c03"), "client 'c01': it did not sign the survivors"),
    }.items():
        agreement = json.dumps({"signatures": {client: signatures[client] for client in offered}}).encode()
        with pytest.raises((RunError, ContributionRefusedError), match=message):
            whole.sessions[asked].answer(AGREEMENT, agreement)


def test_no_client_ever_reveals_both_shares_of_a_peer():
    whole = WholeSum(TERMS, WORDS, {2: ["c03"]})
    whole.run()
    for client in ("c00", "c01", "c02"):
        revealed = json.loads(whole.seen[AGREEMENT, client])
        assert set(revealed["seeds"]) == {"c00", "c01", "c02"}
        assert set(revealed["masks"]) == {"c03"}


@pytest.mark.parametrize("again", [SURVIVORS, AGREEMENT, DELIVERY, "nonsense"])
def test_a_client_that_revealed_answers_no_more(again):
    """Asked a second time with another set, it has no state left that could answer."""
    whole = WholeSum(TERMS, WORDS)
    whole.run()
    with pytest.raises(RunError, match="out of its turn"):
        whole.sessions["c00"].answer(again, Survivors(clients=("c00", "c01", "c02")).to_bytes())


def test_a_second_set_of_survivors_is_refused_and_ends_the_session():
    whole = WholeSum(TERMS, WORDS, {4: ["c00"]})
    whole.run()
    session = whole.sessions["c00"]  # it signed, and has not revealed
    with pytest.raises(RunError, match="out of its turn"):
        session.answer(SURVIVORS, Survivors(clients=("c00", "c01", "c02")).to_bytes())
    with pytest.raises(RunError, match="the session is over"):
        session.answer(AGREEMENT, b"{}")


@pytest.mark.parametrize(
    "survivors", [("c00", "c01"), ("c01", "c02", "c03"), ("c00", "c01", "zz"), ("c02", "c01", "c00"), ("c00",) * 3]
)
def test_a_set_of_survivors_that_cannot_be_is_not_signed(survivors):
    told = Survivors(clients=survivors).to_bytes()
    whole = WholeSum(TERMS, WORDS, down=lambda step, _, body: told if step == SURVIVORS else body)
    with pytest.raises(RunError, match="survivors"):
        whole.run()
    assert not [client for step, client in whole.seen if step == AGREEMENT]


def test_a_roster_with_other_keys_of_this_client_is_refused():
    def edit(message):
        message["clients"][0]["seal_key"] = message["clients"][1]["seal_key"]

    with pytest.raises((RunError, ContributionRefusedError), match="c00"):
        WholeSum(TERMS, WORDS, down=changed(ROSTER, "c00", edit)).run()


def test_a_roster_below_the_threshold_gets_no_shares():
    def edit(message):
        del message["clients"][2:]

    with pytest.raises(RunError, match="roster: too few clients"):
        WholeSum(TERMS, WORDS, down=changed(ROSTER, "c00", edit)).run()


def test_a_vector_of_another_length_is_left_out_by_name():
    def short(step, client, body):
        return body[:-8] if (step, client) == (DELIVERY, "c01") else body

    result = WholeSum(TERMS, WORDS, up=short).run()
    assert result.clients == ("c00", "c02", "c03")
    assert [fault.client for fault in result.faults] == ["c01"]
    assert (result.words == plain_sum(WORDS, result.clients)).all()


def test_another_identity_than_before_is_refused_by_name():
    whole = WholeSum(TERMS, WORDS)
    told = {}
    whole.down = lambda step, client, body: told.setdefault((step, client), body)
    whole.run()
    roster = Roster.from_bytes(told[ROSTER, "c00"], clients=4)
    check_roster(TERMS, roster, {"c01": roster.clients[1].identity})
    with pytest.raises(ContributionRefusedError, match="client 'c01': it has another identity than before"):
        check_roster(TERMS, roster, {"c01": b"\x09" * 32})


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"\xff" * 10, b'{"clients": 3}', b" " * 100_000])
def test_bytes_that_are_no_message_are_refused(body):
    with pytest.raises(AdapterError, match="survivors"):
        Survivors.from_bytes(body, clients=4)


def test_secrets_are_not_printed():
    whole = WholeSum(TERMS, WORDS)
    shown = []
    whole.down = lambda _, client, body: (shown.append(repr(whole.sessions[client])), body)[1]
    whole.run()
    text = "".join(shown)
    assert "seed=" not in text
    assert "private" not in text
    assert "array" not in text
