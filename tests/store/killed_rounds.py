"""Run by test_kill.py in a process of its own: commits a round in forked children and kills each at another call."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import GlobalState
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.store.run_directory import RunDirectory

torch.set_num_threads(1)
ROUNDS = (1, 2, 3)


def state(round):
    return GlobalState(Adapter({"m": Factors(torch.full((1, 2), float(round)), torch.ones(3, 1))}), rounds=round)


def commit(run, round):
    digest = run.save_round(round, state(round), {}, {"loss": 1.0})
    run.journal.append("round_committed", round=round, digest=digest)


def new_run(path):
    experiment = Experiment(clients=(ClientTable(name="a", data="hf:x"),))
    with RunDirectory.create(path, dump(experiment), {}) as run:
        commit(run, 1)


def kill_at(names, number):
    """From now on, the process dies at the given call; a write is done by half before."""
    calls = [0]

    def wrapped(real, name):
        def call(*arguments, **named):
            calls[0] += 1
            if calls[0] != number:
                return real(*arguments, **named)
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call

    for name in names:
        setattr(os, name, wrapped(getattr(os, name), name))


def killed_child(path, names, number):
    """Whether a child that commits round 2 was killed at that call."""
    child = os.fork()
    if child == 0:
        run = RunDirectory.open(path, to_write=True)
        kill_at(names, number)
        commit(run, 2)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def finish(path):
    """What the next process finds, and the digests after it has done the rest."""
    found = RunDirectory.open(path).latest()
    with RunDirectory.open(path, to_write=True) as run:
        loaded = run.load_round(run.latest())[0].rounds
        for round in ROUNDS[run.latest() :]:
            commit(run, round)
        records = run.journal.records()
    left = [str(entry) for entry in path.rglob("*.tmp-*")]
    return {
        "found": found,
        "loaded": loaded,
        "recovered": any("recovered" in record for record in records),
        "repaired": any(record.kind == "repaired" for record in records),
        "digests": [record["digest"] for record in records if record.kind == "round_committed"],
        "left": left,
    }


def main(folder, names):
    new_run(folder / "undisturbed")
    undisturbed = finish(folder / "undisturbed")["digests"]
    kills, number = [], 1
    while True:
        path = folder / str(number)
        new_run(path)
        if not killed_child(path, names, number):
            break
        kills.append(finish(path))
        number += 1
    print(json.dumps({"undisturbed": undisturbed, "kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
