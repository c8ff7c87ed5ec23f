"""A process of its own for the base at each number of bits, so that the peak of one says nothing about another.

Where the system has it, processes are forked from one that has imported the libraries and done nothing with them: the
import takes as long as the measurement.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import torch

from fedloom.errors import FedLoomError, ModelError, PlanError
from fedloom.planning.values import Architecture, Module
from fedloom.spec.experiment import Bits, LoraTable, ModelTable
from fedloom.training.architecture import architecture_of, tokens_of_image
from fedloom.training.base_model import load_base
from fedloom.training.memory import available_bytes, total_bytes
from fedloom.training.peak import peak_so_far
from fedloom.training.probe import ProbedBits, probed
from fedloom.training.trial import Trial, Tried


@dataclass(frozen=True)
class Job:
    """What one process is to measure. longest: of texts, as of `load_base`.  max_tokens: of a row in training."""

    model: ModelTable
    lora: LoraTable
    labels: tuple[str, ...] | None
    longest: int | None
    max_tokens: int
    bits: Bits


@dataclass(frozen=True)
class Loaded:
    """The base in the process. load_bytes: the peak of loading it.  image_tokens: of an image, else None.
    keeps_scores: whether attention keeps its scores for the backward pass.
    gpu_total, gpu_free: bytes of the GPU, and those that were free before the base was there; None without one."""

    architecture: Architecture
    digest: str
    identity: str
    dtype: str
    number_bytes: int
    device: str
    load_seconds: float
    load_bytes: int
    image_tokens: int | None
    classifies: bool
    keeps_scores: bool
    gpu_total: int | None = None
    gpu_free: int | None = None


@dataclass
class Process:
    """The other process, from here."""

    connection: Connection
    job: Job
    process: Any

    def loaded(self) -> Loaded:
        """Waits for the base. Raises: ModelError if it cannot be loaded; PlanError if the process died of it."""
        found = self._answer("loading the base")
        modules = tuple(Module(**module) for module in found["architecture"].pop("modules"))
        return Loaded(**{**found, "architecture": Architecture(modules, **found["architecture"])})

    def measured(self, seconds: float) -> ProbedBits:
        """The trials that fit into the seconds. Raises: PlanError where not even the first one does fit into memory."""
        self.connection.send_bytes(json.dumps(seconds).encode())
        found = self._answer("the trials")
        return ProbedBits(found["bits"], found["number"], tuple(map(_tried, found["tried"])), found["stopped"])

    def _answer(self, what: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionError):
            self.process.join()
            raise _died(what, self.job, self.process.exitcode) from None
        if "error" in answer:
            kind = PlanError if answer["kind"] == "PlanError" else ModelError
            raise kind(answer["what"], **answer["error"])
        return answer


def _died(what: str, job: Job, code: int | None) -> PlanError:
    return PlanError(
        f"the process ended during {what}",
        where=f"{job.model.id}, bits {job.bits}",
        found=f"exit code {code}" + (", as when the system has no memory left" if code == -9 else ""),
        do="Close other programs, or choose a smaller base model",
    )


@contextmanager
def begun(job: Job) -> Iterator[Process]:
    """A process that loads the base; it ends with the block."""
    context = _context()
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, job), daemon=True)
    process.start()
    there.close()
    try:
        yield Process(here, job, process)
    finally:
        here.close()
        process.terminate()
        process.join()


def _context() -> ForkServerContext | SpawnContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(connection: Connection, job: Job) -> None:
    """In the process: load, answer, wait for the seconds, measure, answer."""
    try:
        began, gpu = time.monotonic(), torch.device("cuda") if torch.cuda.is_available() else None
        free = available_bytes(gpu) if gpu else None
        base = load_base(job.model, job.lora, job.labels, job.longest, job.bits)
        loaded = Loaded(
            architecture=architecture_of(base),
            digest=base.digest,
            identity=base.identity,
            dtype=str(base.dtype).removeprefix("torch."),
            number_bytes=base.dtype.itemsize,
            device=base.device.type,
            load_seconds=time.monotonic() - began,
            load_bytes=peak_so_far(),
            image_tokens=tokens_of_image(base) if base.task == "image-classification" else None,
            classifies=base.classifies,
            keeps_scores=base.model.config._attn_implementation == "eager",
            gpu_total=total_bytes(gpu) if gpu else None,
            gpu_free=free,
        )
        _send(connection, asdict(loaded))
        seconds = json.loads(connection.recv_bytes())
        _send(connection, asdict(probed(base, seconds, job.max_tokens)))
    except FedLoomError as error:
        details = {name: _plain(getattr(error, name)) for name in ("where", "expected", "found", "do")}
        _send(connection, {"kind": type(error).__name__, "what": error.what, "error": details})
    except (EOFError, ConnectionError):
        return  # nobody waits for it any more


def _plain(value: object) -> str | None:
    return None if value is None else str(value)


def _send(connection: Connection, answer: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(answer).encode())


def _tried(found: dict[str, Any]) -> Tried:
    asked = found["trial"]
    ranks = tuple((name, rank) for name, rank in asked["ranks"])
    trial = Trial(ranks, asked["batch"], asked["tokens"], asked["labels"])
    return Tried(trial, found["peak_bytes"], found["step_seconds"], found["how"])
