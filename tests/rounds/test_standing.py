"""Who is shut out is what was decided last about each client."""

from fedloom.rounds.standing import excluded_clients


def record(kind, client, **more):
    return {"kind": kind, "client": client, "round": 1, "by": "operator", **more}


def test_what_was_decided_last_holds():
    records = [
        record("excluded", "a", reason="norm"),
        record("excluded", "b", reason="asked"),
        record("readmitted", "a"),
        {"kind": "rolled_back", "round": 0, "lost": [1]},
        record("excluded", "c", reason="once"),
        record("excluded", "c", reason="twice"),
    ]
    assert excluded_clients(records) == {"b": "asked", "c": "twice"}
