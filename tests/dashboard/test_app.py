"""The application: who is let in, what is shown, what is asked; whatever is bad leaves the run as it was."""

import asyncio
import json
import re

import pytest

from fedloom.store.run_directory import RunDirectory

pytest.importorskip("fastapi")
testclient = pytest.importorskip("starlette.testclient")

from fedloom.dashboard.app import make_app, messages  # noqa: E402
from fedloom.dashboard.watch import Watches  # noqa: E402

PORT, TOKEN = 8765, "secret-token"
OWN = f"http://127.0.0.1:{PORT}"


def page_of(path, *, base=OWN, let_in=True, **options):
    client = testclient.TestClient(make_app(Watches(path, **options), TOKEN, PORT), base_url=base)
    if let_in:
        assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def ask(page, run="run", origin=OWN, **body):
    return page.post(f"/api/runs/{run}/requests", json=body, headers={"origin": origin})


def files(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_prometheus_reads_the_numbers_of_a_run_with_the_token_as_a_header(finished):
    client = page_of(finished, let_in=False)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    for headers in ({}, {"authorization": "Bearer guess"}, {"authorization": TOKEN}):
        assert client.get("/metrics/run", headers=headers).status_code == 403
    assert client.get("/api/runs", headers=bearer).status_code == 403, "for /metrics alone"
    assert client.get("/metrics/other", headers=bearer).status_code == 404
    said = client.get("/metrics/run", headers=bearer).text.splitlines()
    records = RunDirectory.open(finished).journal.records()
    sent = sum(record["bytes_up"] for record in records if "bytes_up" in record)
    losses = {record["client"]: record["loss"] for record in records if record["kind"] == "evaluation"}
    assert 'fedloom_round{run="run"} 4.0' in said
    assert f'fedloom_bytes_up{{run="run"}} {float(sent)}' in said
    assert all(f'fedloom_client_loss{{client="{name}",run="run"}} {loss}' in said for name, loss in losses.items())


EXCLUDE = {"id": "one", "action": "exclude", "seen": 4, "client": "b", "reason": "odd"}


@pytest.mark.parametrize(
    "path", ["/", "/dashboard.js", "/api/runs", "/api/runs/run/view", "/api/runs/run/events", "/x"]
)
def test_without_the_token_there_is_nothing(finished, path):
    client = page_of(finished, let_in=False)
    assert client.get(path).status_code == 403
    assert client.get(path, headers={"cookie": f"fedloom_{PORT}=guess"}).status_code == 403
    assert client.get(path, params={"token": "guess"}).status_code == 403


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_see(finished):
    client = page_of(finished, let_in=False)
    answer = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert re.search("httponly", answer.headers["set-cookie"], re.I)
    assert re.search("samesite=strict", answer.headers["set-cookie"], re.I)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_another_name_of_the_server_is_refused(finished):
    client = page_of(finished)
    assert client.get("/", headers={"host": "evil.example:8765"}).status_code == 403
    assert client.get("/", headers={"host": "127.0.0.1:80"}).status_code == 403


def test_the_page_needs_nothing_from_elsewhere(finished):
    client = page_of(finished)
    page = client.get("/").text
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert client.get(name).status_code == 200
    for name in ("dashboard.js", "charts.js", "asking.js", "clients.js", "elements.js", "style.css"):
        text = client.get(f"/{name}").text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text), name


def test_a_request_is_carried_out_once(finished):
    client = page_of(finished)
    answer = ask(client, **EXCLUDE)
    assert (answer.status_code, answer.json()) == (200, {"done": True})
    again = ask(client, **EXCLUDE)
    assert again.status_code == 409
    assert "asked before" in again.json()["error"]
    records = RunDirectory.open(finished).journal.records()
    assert [record["client"] for record in records if record.kind == "excluded"] == ["b"]
    assert client.get("/api/runs/run/view").json()["excluded"] == {"b": "odd"}


BAD = {
    "stale": (EXCLUDE | {"seen": 3}, 409, "gone on"),
    "no page": ({"id": "x", "action": "exclude", "client": "b", "reason": "odd"}, 422, "seen"),
    "seen is none": (EXCLUDE | {"seen": None}, 422, "seen"),
    "action": (EXCLUDE | {"action": "delete"}, 409, "no such action"),
    "client": (EXCLUDE | {"client": "nobody"}, 409, "no such client"),
    "id": (EXCLUDE | {"id": "../../up"}, 409, "not the id"),
    "more": (EXCLUDE | {"path": "/etc"}, 422, "JSON object"),
    "no reason": (EXCLUDE | {"reason": " "}, 409, "without a reason"),
    "not running": ({"id": "x", "action": "pause", "seen": 4}, 409, "not in progress"),
    "round": ({"id": "x", "action": "rollback", "seen": 4, "to": 9}, 409, "no such round"),
    "type": ({"id": "x", "action": "rollback", "seen": 4, "to": "2"}, 409, "not the to"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_changes_nothing_and_says_why(finished, name):
    body, status, words = BAD[name]
    client, before = page_of(finished), files(finished)
    answer = ask(client, **body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert files(finished) == before


def test_a_change_from_elsewhere_is_refused(finished):
    client, before = page_of(finished), files(finished)
    url = "/api/runs/run/requests"
    data, kind = json.dumps(EXCLUDE), {"content-type": "application/json"}
    assert ask(client, origin="http://evil.example", **EXCLUDE).status_code == 403
    assert client.post(url, content=data, headers=kind).status_code == 403
    assert client.post(url, content=data, headers={"origin": OWN, "content-type": "text/plain"}).status_code == 403
    assert client.get(url, params=EXCLUDE).status_code == 405
    assert client.get("/api/runs/run/exclude").status_code == 404
    long = client.post(url, content='{"id": "' + "x" * 20_000 + '"}', headers=kind | {"origin": OWN})
    assert long.status_code == 422
    half = client.post(url, content=json.dumps(EXCLUDE | {"reason": "odd \udcff"}), headers=kind | {"origin": OWN})
    assert (half.status_code, "the reason is no text" in half.json()["error"]) == (409, True)
    assert client.post(url, content="[" * 9_000, headers=kind | {"origin": OWN}).status_code == 422
    assert files(finished) == before


@pytest.mark.parametrize("run", ["other", "..", "%2e%2e%2frun", "..%2frun", "run%00", "run%2frounds", ".hidden"])
def test_only_runs_of_the_folder_are_there(finished, run):
    (finished.parent / ".hidden").mkdir()
    (finished.parent / ".hidden" / "journal.jsonl").touch()
    for client in (page_of(finished), page_of(finished.parent, all_below=True)):
        before = files(finished)
        assert client.get(f"/api/runs/{run}/view").status_code in (403, 404)
        assert ask(client, run=run, **EXCLUDE).status_code in (403, 404, 405)
        assert files(finished) == before


def test_all_runs_are_listed_and_tables_paged(finished):
    client = page_of(finished.parent, all_below=True)
    assert client.get("/api/runs").json() == ["run"]
    found = client.get("/api/runs/run/clients?sort=loss&limit=2&descending=true").json()
    assert (found["total"], len(found["rows"])) == (3, 2)
    assert client.get("/api/runs/run/clients?sort=__class__").status_code == 422
    assert client.get("/api/runs/run/clients?offset=x").status_code == 422
    assert [point[0] for point in client.get("/api/runs/run/curve?client=a").json()] == [0, 1, 2, 3, 4]


def test_events_begin_with_everything_and_go_on_with_what_is_new(finished):
    watch = Watches(finished).get("run")

    async def heard():
        stream = messages(watch)
        first = await anext(stream)
        RunDirectory.open(finished).journal.append("dropout", round=5, client="c", reason="power cut")
        later = [await anext(stream)]
        while not later[-1].startswith("event"):
            later.append(await anext(stream))
        await stream.aclose()
        return first, later[-1]

    first, later = asyncio.run(heard())
    assert first.startswith("event: all\n")
    change = json.loads(later.split("data: ", 1)[1])
    assert later.startswith("event: delta\n")
    assert [alert["client"] for alert in change["rows"]["alerts"].values()] == ["c"]
    assert list(change["rows"]["rounds"]) == ["5"]


def test_a_damaged_journal_is_shown_as_far_as_it_is_whole(finished):
    journal = finished / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    changed = [line.replace(b'"contributions": 3', b'"contributions": 2') for line in lines]
    journal.write_bytes(b"".join(changed))
    found = page_of(finished).get("/api/runs/run/view").json()
    assert "chain" in found["file"]["problem"]
    assert 0 < found["run"]["records"] < len(lines)
