"""Measures what is outstanding, in this process or in several, and stops in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from evidence.cells import Cell, Cells, Known
from evidence.measure import measure
from evidence.suite import Problem, Suite
from evidence.variants import Variant
from fedloom.errors import FedLoomError

THREADS = 1  # per process: two processes of one thread are faster than one of two


@dataclass(frozen=True)
class Job:
    """What a process needs to measure one cell."""

    suite: Suite
    data: Path
    cell: Cell
    variant: Variant


@dataclass(frozen=True)
class Done:
    """metrics are empty where the training failed, and problem says why."""

    cell: Cell
    label: str
    metrics: dict[str, float]
    problem: str = ""


def measured(job: Job) -> Done:
    """Train and judge; a training that diverges is a result too."""
    setting = job.suite.settings[job.cell.setting]
    problem = job.suite.problem(job.data, setting, job.cell.seed)
    try:
        return Done(job.cell, job.variant.label, _metrics(job, problem))
    except FedLoomError as error:
        return Done(job.cell, job.variant.label, {}, str(error))


def _metrics(job: Job, problem: Problem) -> dict[str, float]:
    reference = job.suite.references.get(job.variant.label)
    return reference(problem, job.cell.rate) if reference else measure(problem, job.variant, job.cell.rate)


def work_off(
    jobs: Callable[[Known], list[Job]],
    cells: Cells,
    *,
    workers: int,
    seconds: float | None,
    observe: Callable[[Done], None],
) -> bool:
    """Measure until nothing is outstanding, or until the time is over: nothing is begun after `seconds`.

    jobs: what can be measured, given what is known; asked again after every cell.
    Gives whether everything is measured.
    """
    ends = time.monotonic() + seconds if seconds is not None else float("inf")
    with _processes(workers) as submit:
        running: set[Future[Done]] = set()
        begun: set[Cell] = set()
        while True:
            waiting = [job for job in jobs(cells.known()) if job.cell not in begun]
            while waiting and len(running) < workers and time.monotonic() < ends:
                job = waiting.pop(0)
                begun.add(job.cell)
                running.add(submit(job))
            if not running:
                return not waiting
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done = future.result()
                cells.add(done.cell, done.label, done.metrics, done.problem)
                observe(done)


@contextmanager
def _processes(workers: int) -> Iterator[Callable[[Job], Future[Done]]]:
    """What takes a job: a pool of processes, or for one worker this process."""
    if workers == 1:
        torch.set_num_threads(THREADS)
        yield _here
        return
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        yield lambda job: pool.submit(measured, job)


def _prepare() -> None:
    torch.set_num_threads(THREADS)


def _here(job: Job) -> Future[Done]:
    future: Future[Done] = Future()
    future.set_result(measured(job))
    return future
