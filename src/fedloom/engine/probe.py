"""`fedloom probe`: one machine is measured once, at each number of bits, for all clients whose rows lie on it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.data.clients import ClientData, Sources
from fedloom.data.examples import Labelled
from fedloom.data.tokens import IGNORED, encode_all
from fedloom.engine.events import Observer, Stage, silent
from fedloom.engine.sites import MOST_BITS, TWO_CLASSES, longest_text, versions
from fedloom.errors import ConfigError, FedLoomError, ModelError, PlanError
from fedloom.planning.calibrate import Calibration, Measurement, calibrated, held_of, known_memory
from fedloom.planning.probe_file import (
    Bandwidth,
    BaseFacts,
    Calibrated,
    Loading,
    Probe,
    Rows,
    Unavailable,
    architecture_digest,
    facts_of,
    histogram,
)
from fedloom.planning.values import Architecture, Choice, Machine, Speed, Work
from fedloom.spec.experiment import Bits, Experiment
from fedloom.training.checkpoint import load_tokenizer
from fedloom.training.memory import available_bytes, total_bytes
from fedloom.training.probe import ProbedBits
from fedloom.training.probe_process import Job, Loaded, begun


@dataclass(frozen=True)
class Link:
    """The connection to the server, as far as anything is known of it; bandwidths in bytes per second, declared."""

    upload: float | None = None
    download: float | None = None
    server: tuple[str, int] | None = None

    def facts(self) -> Bandwidth | None:
        """What the file says of it. Raises: PlanError where the server cannot be reached."""
        if self == Link():
            return None
        host, port = self.server or (None, 0)
        return Bandwidth(
            source="declared",
            upload=self.upload,
            download=self.download,
            server=None if host is None else f"{host}:{port}",
            connect_seconds=None if host is None else _connect_seconds(host, port),
        )


@dataclass
class Measured:
    """Of all bits so far."""

    loaded: dict[Bits, Loaded] = field(default_factory=dict)
    probed: dict[Bits, ProbedBits] = field(default_factory=dict)
    unavailable: list[Unavailable] = field(default_factory=list)
    rows: dict[str, Rows] = field(default_factory=dict)


def probe(
    experiment: Experiment,
    clients: Sequence[str],
    *,
    seconds: float = 50.0,
    link: Link | None = None,
    memory_limit: int | None = None,
    observe: Observer = silent,
) -> tuple[list[Probe], Architecture]:
    """One probe for each client, and the base as planning sees it. seconds: that all of it should take.

    memory_limit: bytes that the site allows.
    Raises: ConfigError for an unknown client, DataError, ModelError; PlanError where the memory does not suffice for
    the smallest configuration, or the server cannot be reached.
    """
    began, before = time.monotonic(), available_bytes()
    _require_clients(experiment, clients)
    bandwidth = (link or Link()).facts()
    found = _measured(experiment, clients, began + seconds, observe)
    first = found.loaded["none"]
    room = before if first.gpu_free is None else first.gpu_free
    calibration, trials = _calibration(found, min(room, memory_limit or room))
    probes = [
        Probe(
            format=1,
            client=name,
            base=_base_facts(first),
            machine=facts_of(calibration.machine),
            memory_total=first.gpu_total or total_bytes(),
            memory_available=int(calibration.machine.memory_bytes),
            cores=os.cpu_count() or 1,
            device=first.device,
            versions=versions(),
            loading=tuple(_loading(found, bits) for bits in found.probed),
            unavailable=tuple(found.unavailable),
            rows=found.rows[name],
            bandwidth=bandwidth,
            calibrated=_calibrated(calibration, trials, found),
            seconds=time.monotonic() - began,
        )
        for name in clients
    ]
    return probes, first.architecture


def _require_clients(experiment: Experiment, clients: Sequence[str]) -> None:
    known = [client.name for client in experiment.clients]
    unknown = [name for name in clients if name not in known]
    if unknown:
        lines = [f"there is no client {name!r}; expected one of {', '.join(known)}" for name in unknown]
        raise ConfigError(lines, where="--client")


def _measured(experiment: Experiment, clients: Sequence[str], end: float, observe: Observer) -> Measured:
    """One base after the other. The rows are read while the first one is loaded, and nothing is done while it is
    measured."""
    found, sources = Measured(), Sources(experiment)
    for place, bits in enumerate(MOST_BITS):
        observe(Stage(f"loading {experiment.model.id}" + ("" if bits == "none" else f" in {bits} bits")))
        try:
            with begun(_job(experiment, bits)) as process:
                data = {} if found.rows else {name: sources.client(name) for name in clients}
                loaded = process.loaded()
                found.rows |= {name: _rows(experiment, loaded, rows, name) for name, rows in data.items()}
                observe(Stage("measuring training steps"))
                probed = process.measured(_share(end - time.monotonic(), loaded.load_seconds, MOST_BITS[place + 1 :]))
                found.loaded[bits], found.probed[bits] = loaded, probed
        except (ModelError, PlanError) as error:
            if bits == "none":
                raise
            found.unavailable.append(Unavailable(bits=bits, reason=_reason(error)))
    return found


def _job(experiment: Experiment, bits: Bits) -> Job:
    """The base is the one that is planned with: with as many classes as are known without reading anybody's rows."""
    labels = (experiment.model.labels or TWO_CLASSES) if experiment.model.classifies else None
    return Job(
        experiment.model, experiment.lora, labels, longest_text(experiment), experiment.training.max_tokens, bits
    )


def _share(left: float, load_seconds: float, later: Sequence[Bits]) -> float:
    """Seconds for the trials at some bits: what is left when the other bases are loaded, in parts.

    To load a quantised base takes about twice as long, as its weights are rounded on the way, and it has half of the
    trials.
    """
    return max(0.0, left - 2 * load_seconds * len(later)) / (1 + len(later) / 2)


def _reason(error: FedLoomError) -> str:
    return error.what if error.found is None else f"{error.what} ({error.found})"


def _rows(experiment: Experiment, loaded: Loaded, data: ClientData, client: str) -> Rows:
    """Counts only: neither texts nor the length of a single row are kept."""
    learned: list[int] = []
    if loaded.image_tokens is not None:
        train = [loaded.image_tokens] * len(data.train)
    else:
        numbers = {label: number for number, label in enumerate(_classes(data))} or None
        tokenizer = load_tokenizer(experiment.model)
        encoded = encode_all(data.train, tokenizer, experiment.training.max_tokens, numbers, client=client)
        train = [row.size for row in encoded]
        learned = [] if numbers else [sum(label != IGNORED for label in row.labels) for row in encoded]
    return Rows(
        train=len(train),
        held_out=len(data.held_out),
        dropped=data.dropped + len(data.train) - len(train),
        lengths=histogram(train),
        learned=histogram(learned),
    )


def _classes(data: ClientData) -> list[str]:
    return sorted({item.label for item in data.train if isinstance(item, Labelled)})


def _calibration(found: Measured, memory_bytes: float) -> tuple[Calibration, int]:
    first = found.loaded["none"]
    trials = [
        Measurement(
            Choice(one.trial.ranks, probed.number, one.trial.batch, 1),
            Work(1, one.trial.batch, one.trial.tokens, one.trial.labels),
            float(one.peak_bytes),
            one.step_seconds,
        )
        for probed in found.probed.values()
        for one in probed.tried
    ]
    speeds = tuple(Speed(probed.number, 0.0, 0.0) for probed in found.probed.values())
    memory = known_memory(first.number_bytes)
    machine = Machine(float(memory_bytes), speeds, compute_bytes=first.number_bytes, memory=memory)
    held = held_of(classifies=first.classifies, keeps_scores=first.keeps_scores)
    return calibrated(first.architecture, machine, trials, held), len(trials)


def _base_facts(loaded: Loaded) -> BaseFacts:
    """A folder is told by its name alone: where it lies is nobody's business but the site's."""
    own = Path(loaded.identity)
    return BaseFacts(
        identity=own.name if own.is_absolute() else loaded.identity,
        digest=loaded.digest,
        architecture=architecture_digest(loaded.architecture),
        dtype=loaded.dtype,
    )


def _loading(found: Measured, bits: Bits) -> Loading:
    loaded = found.loaded[bits]
    number = found.probed[bits].number
    return Loading.model_validate(
        {"bits": number, "seconds": loaded.load_seconds, "peak_bytes": float(loaded.load_bytes)}
    )


def _calibrated(calibration: Calibration, trials: int, found: Measured) -> Calibrated:
    stopped = [probed.stopped for probed in found.probed.values() if probed.stopped is not None]
    return Calibrated(
        trials=trials,
        memory_by=found.probed["none"].tried[0].how,
        memory_error=calibration.memory_error,
        seconds_error=calibration.seconds_error,
        assumed=calibration.assumed,
        stopped=stopped[0] if stopped else None,
    )


def _connect_seconds(host: str, port: int) -> float:
    """How long a TCP connection takes. Raises: PlanError where there is none."""
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=10):
            return time.monotonic() - began
    except OSError as error:
        do = "Start the server, or leave --server out: it is needed for no other number"
        raise PlanError("the server cannot be reached", where=f"{host}:{port}", found=error, do=do) from error
