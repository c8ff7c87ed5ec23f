"""How fast the dashboard shows a large run: first paint, and an update, in a headless Chromium.

    python benchmarks/dashboard.py [--clients 1000] [--rounds 200] [--updates 5]

The journal is made up, with a valid chain. The first page finds a server that has read nothing; the second one finds
everything read, as do updates: a record is appended, and the clock stops when the page has drawn it. Writes
results/dashboard.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from uvicorn import Config, Server

from fedloom.cli.dashboard import bound
from fedloom.dashboard.app import make_app
from fedloom.dashboard.watch import Watches
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment, TrainingTable
from fedloom.store.journal import DIGEST, GENESIS, Journal, Record, digest_of
from fedloom.store.run_directory import RunDirectory

RESULTS = Path(__file__).parent / "results"
TIME = "2026-01-01T00:00:00+00:00"


def make_run(path: Path, clients: int, rounds: int) -> None:
    """A run that is in its last round but one, by its journal."""
    names = [f"client-{number:04d}" for number in range(clients)]
    tables = tuple(ClientTable(name=name, data="none.jsonl", rank=4) for name in names)
    experiment = Experiment(clients=tables, training=TrainingTable(rounds=rounds + 1))
    RunDirectory.create(path, dump(experiment), {}).close()
    first = Journal(path / "journal.jsonl").records()[0]
    previous, number = first.digest, 1
    with (path / "journal.jsonl").open("ab") as file:
        for kind, fields in events(names, rounds):
            number += 1
            content = {"number": number, "time": TIME, "kind": kind, **fields, "previous": previous}
            content[DIGEST] = previous = digest_of(content)
            file.write(Record(content).line())
    assert previous != GENESIS


def events(names: list[str], rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What such a run journals: each client trains and is measured in every round, but for one in a hundred."""
    draw = Random(0)
    yield "run_started", {"name": "large", "method": "loom", "base": "a base", "task": "generation", "clients": {}}
    for round in range(1, rounds + 1):
        yield "round_started", {"round": round, "participants": names}
        for name in names:
            if draw.random() < 0.01:
                yield "dropout", {"round": round, "client": name, "reason": "did not answer"}
                continue
            sent = {"bytes_down": 40_000, "bytes_up": 20_000, "loss": 3 / round + draw.random(), "seconds": 1.0}
            yield "contribution", {"round": round, "client": name, "examples": 64, **sent}
        yield "round_committed", {"round": round, "digest": "0", "seconds": 60.0, "contributions": len(names)}
        for name in names:
            scores = {"loss": 3 / round + draw.random(), "label_tokens": 900.0, "rows": 30.0, "rougeL": 0.3}
            yield (
                "evaluation",
                {"stage": "round", "round": round, "client": name, "bytes_down": 1, "bytes_up": 1, **scores},
            )


@contextmanager
def served(watches: Watches) -> Iterator[str]:
    """The dashboard of a run in a thread; its address with the token."""
    with bound(0) as taken:
        port = taken.getsockname()[1]
        app = make_app(watches, "token", port)
        server = Server(Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/?token=token"
        server.should_exit = True
        thread.join(5)


def browser() -> webdriver.Chrome:
    """A headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(each)
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def opened(page: webdriver.Chrome, url: str) -> dict[str, float]:
    """Seconds from opening the page to its first paint, its first curve, and everything read."""
    began = time.monotonic()
    page.get(url)
    seconds = {"first_figures": wait(page, "return document.querySelectorAll('#tiles .tile').length > 0", began)}
    seconds["everything_read"] = wait(page, "return document.documentElement.dataset.read === '1'", began)
    script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
    return {"first_paint": page.execute_script(script) / 1000, **seconds}


def wait(page: webdriver.Chrome, script: str, began: float, limit: float = 400.0) -> float:
    """Seconds since `began` when the script first says yes."""
    while not page.execute_script(script):
        if time.monotonic() - began > limit:
            raise TimeoutError(script)
        time.sleep(0.01)
    return time.monotonic() - began


def updates(page: webdriver.Chrome, path: Path, count: int) -> list[float]:
    """Seconds from the append of a record to the frame in which the page shows it."""
    journal, found = Journal(path / "journal.jsonl"), []
    journal.records()
    for number in range(count):
        journal.append("dropout", round=1, client="client-0007", reason=f"update {number}")
        began = time.monotonic()
        found.append(
            wait(page, f"return document.getElementById('alerts').textContent.includes('update {number}')", began)
        )
        time.sleep(0.3)
    return found


def work(watches: Watches) -> float:
    """Median seconds of the server's own part of an update: to look, with everything read."""
    watch = watches.get(watches.names()[0])
    assert watch is not None
    taken = []
    for _ in range(5):
        began = time.monotonic()
        watch.look()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--updates", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large"
        make_run(path, given.clients, given.rounds)
        page, watches = browser(), Watches(path)
        try:
            with served(watches) as url:
                cold, warm = opened(page, url), opened(page, url)
                latencies = updates(page, path, given.updates)
        finally:
            page.quit()
        megabytes = (path / "journal.jsonl").stat().st_size / 1e6
        found = {
            "clients": given.clients,
            "rounds": given.rounds,
            "journal_megabytes": megabytes,
            "cold_seconds": cold,
            "warm_seconds": warm,
            "update_seconds": latencies,
            "look_seconds": work(watches),
        }
    print(json.dumps(found, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dashboard.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
