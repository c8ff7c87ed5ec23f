"""Run by test_killed_releases.py in a process of its own: runs with noise in forked children, each killed at another
write or sync of what the clients keep, and then resumed."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch

import fedloom
from fedloom.engine.drive import drive
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import loop_of
from fedloom.engine.sites import load_sites
from fedloom.spec.dump import dump
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation

torch.set_num_threads(1)
PRIVACY = '[privacy]\nunit = "example"\nnoise_multiplier = 1\ndelta = 1e-3\n'


def counted(calls, fatal):
    """From now on, the process dies at the given call about a client's files; a write is done by half before."""

    def wrapped(real, name):
        def call(descriptor, *arguments):
            path = descriptor if isinstance(descriptor, str) else os.readlink(f"/proc/self/fd/{descriptor}")
            if "/clients/" not in str(path):
                return real(descriptor, *arguments)
            calls[0] += 1
            if calls[0] == fatal:
                if name == "write":
                    real(descriptor, bytes(arguments[0])[: len(arguments[0]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(descriptor, *arguments)

        return call

    for name in ("write", "fsync"):
        setattr(os, name, wrapped(getattr(os, name), name))


def child(work):
    """The exit status of a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def ledgers(run):
    return {
        path.parent.name: [
            {key: record.get(key) for key in ("kind", "round", "epsilon")}
            for record in map(json.loads, path.read_text().splitlines())
        ]
        for path in sorted((run / "clients").glob("*/ledger.jsonl"))
    }


def answers(run):
    """name, which has the digest of the question -> bytes, of all answers that are there."""
    return {path.name: path.read_bytes().hex() for path in (run / "clients").glob("*/answer-*.safetensors")}


def main(folder):
    experiment = fedloom.load(tiny_federation(folder, rows=40, rounds=2, method="ffa", ranks=(4,), extra=PRIVACY))
    sites = load_sites(experiment)

    def rounds(directory):
        """All rounds that are left, without measuring anything."""
        with directory:
            drive(loop_of(experiment, directory, LocalEngine(sites, store=directory.clients), stages=frozenset()))

    def attempt(number):
        directory = RunDirectory.create(folder / str(number), dump(experiment), {})
        counted([0], number)
        rounds(directory)

    # Whatever is imported when it is first used is then imported once, and not in every child.
    rounds(RunDirectory.create(folder / "warm", dump(experiment), {}))
    outcomes, number = [], 1
    while os.WIFSIGNALED(child(partial(attempt, number))):
        run = folder / str(number)
        before = answers(run)
        resumed = child(lambda run=run: rounds(RunDirectory.open(run, to_write=True)))
        sent = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        outcomes.append(
            {
                "status": resumed,
                "before": before,
                "after": answers(run),
                "ledgers": ledgers(run),
                "epsilons": [record["epsilon"] for record in sent if record["kind"] == "contribution"],
            }
        )
        number += 1
    print(json.dumps({"undisturbed": ledgers(folder / str(number)), "killed": outcomes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
