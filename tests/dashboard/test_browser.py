"""The page in a browser: a finished run, and one in progress that is paused and loses a client by its buttons."""

import shutil
import threading
import time
from contextlib import contextmanager

import pytest

from fedloom.engine.control import ask
from fedloom.engine.drive import drive
from fedloom.engine.events import Journaled
from fedloom.store.requests import Request
from fedloom.store.run_directory import RunDirectory

webdriver = pytest.importorskip("selenium.webdriver")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from selenium.webdriver.common.by import By  # noqa: E402

from fedloom.cli.dashboard import bound  # noqa: E402
from fedloom.dashboard.app import make_app  # noqa: E402
from fedloom.dashboard.watch import Watches  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture
def page():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(each)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield found
    found.quit()


@contextmanager
def served(path):
    with bound(0) as taken:
        port = taken.getsockname()[1]
        config = uvicorn.Config(
            make_app(Watches(path), "token", port), log_level="critical", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/?token=token"
        server.should_exit = True
        thread.join(5)


def until(found, seconds=30):
    """What `found` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return value


def text(page, name):
    return page.find_element(By.ID, name).text


def button(page, action):
    return page.find_element(By.CSS_SELECTOR, f"[data-action={action}]")


def confirm(page):
    page.find_element(By.ID, "dialog-yes").click()


def kinds(path, kind):
    return [record for record in RunDirectory.open(path).journal.records() if record.kind == kind]


def test_a_finished_run_is_shown_and_a_client_excluded(finished, page):
    with served(finished) as url:
        page.get(url)
        until(lambda: "4 of" in text(page, "tiles"))
        assert "token" not in page.current_url
        assert page.find_elements(By.CSS_SELECTOR, "#loss-chart path.pooled")
        assert not button(page, "pause").is_enabled()
        until(lambda: len(page.find_elements(By.CSS_SELECTOR, "#clients tbody tr")) == 3)
        page.find_element(By.CSS_SELECTOR, "[data-key=ask-b]").click()
        confirm(page)
        until(lambda: "without a reason" in text(page, "dialog-error"))
        assert not kinds(finished, "excluded")
        page.find_element(By.ID, "dialog-reason").send_keys("odd")
        confirm(page)
        until(lambda: "Done: exclude b" in text(page, "said"))
        assert [record["reason"] for record in kinds(finished, "excluded")] == ["odd"]
        until(lambda: "1 excluded" in text(page, "states"))
        assert [
            each for each in page.get_log("browser") if each["level"] == "SEVERE" and "409" not in each["message"]
        ] == []


def test_a_run_in_progress_is_paused_loses_a_client_and_goes_on(make_loop, page):
    def slowly(event):
        if isinstance(event, Journaled) and event.kind == "round_started":
            time.sleep(1.0)

    loop = make_loop(observe=slowly, training={"rounds": 60})
    path = loop.directory.path
    thread = threading.Thread(target=drive, args=(loop,), daemon=True)
    thread.start()
    try:
        with served(path) as url:
            page.get(url)
            until(lambda: "in progress" in text(page, "status"))
            button(page, "pause").click()
            assert "No further round" in text(page, "dialog-text")
            page.find_element(By.ID, "dialog-no").click()
            assert not kinds(path, "control")
            button(page, "pause").click()
            confirm(page)
            until(lambda: text(page, "status") == "paused")
            rounds = len(kinds(path, "round_committed"))
            page.find_element(By.CSS_SELECTOR, "[data-key=ask-c]").click()
            page.find_element(By.ID, "dialog-reason").send_keys("odd")
            confirm(page)
            until(lambda: kinds(path, "excluded"))
            assert len(kinds(path, "round_committed")) == rounds
            button(page, "continue").click()
            confirm(page)
            until(lambda: kinds(path, "round_started")[-1]["round"] == rounds + 1)
            assert kinds(path, "round_started")[-1]["participants"] == ["a", "b"]
    finally:
        if thread.is_alive():
            ask(path, Request("end", "stop"))
        thread.join(15)
    assert [record["action"] for record in kinds(path, "control")] == ["pause", "exclude", "continue", "stop"]
