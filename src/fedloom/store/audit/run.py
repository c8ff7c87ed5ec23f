"""Everything in a run's directory that has a digest somewhere, against that digest. Reads only; no lock, no repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.errors import FedLoomError, RunError
from fedloom.store.audit.alone import check_alone
from fedloom.store.audit.chain import Chain, chain_of
from fedloom.store.audit.findings import Check, Damage, FileAudit, counted
from fedloom.store.audit.ledgers import cut_lines, releases_of
from fedloom.store.audit.rounds import check_rounds, check_set_aside
from fedloom.store.client_store import ClientStore
from fedloom.store.exported import FINISHED, adapter_files, file_digests, sha256_of
from fedloom.store.journal import DIGEST
from fedloom.store.ledger import FILE as LEDGER
from fedloom.store.piece_store import PieceStore

JOURNAL, CONFIGURATION, CLIENTS = "journal.jsonl", "experiment.toml", "clients"
SHORTEST = 12  # hexadecimal digits of a digest that are enough to tell it from all others of a run
Records = Sequence[Mapping[str, Any]]


def audit_files(run: Path, *, ledgers: Path | None = None, expect: str | None = None) -> FileAudit:
    """Check all files of a run, and of the runs below it.

    ledgers: where each client's ledger is, as CLIENT/ledger.jsonl; None: in the run's clients/.
    expect: the digest that was written down of the journal's head, or its beginning.
    Raises: RunError if there is no journal to read, `expect` is no digest, or `ledgers` no folder.
    """
    _require_digest(expect)
    _require_folder(ledgers)
    journal = chain_of(_journal_bytes(run), JOURNAL)
    records = journal.records
    checks = [
        _check_journal(journal),
        *([] if expect is None else [_check_expected(journal, expect)]),
        _check_configuration(run, records),
        check_rounds(run, records, whole=not journal.damage),
        *check_set_aside(run, records),
        *_check_ledgers(run, ledgers or run / CLIENTS, journal.contents, sites=ledgers is None),
        _check_adapter(run, records),
        *_check_pieces(run),
        *_check_kept(run),
        *check_alone(run, records),
        *_checks_below(run),
    ]
    return FileAudit(str(run), journal.head, len(records), tuple(checks), _stands(records, expect))


def _require_folder(ledgers: Path | None) -> None:
    if ledgers is not None and not ledgers.is_dir():
        expected = "a folder with CLIENT/ledger.jsonl of each site"
        raise RunError("there is no such folder of ledgers", where="--ledgers", expected=expected, found=str(ledgers))


def _require_digest(expect: str | None) -> None:
    if expect is None or (SHORTEST <= len(expect) <= 64 and set(expect) <= set("0123456789abcdef")):
        return
    expected = f"{SHORTEST} to 64 hexadecimal digits, as `fedloom audit` prints them"
    raise RunError("this is no digest of a journal's head", where="--expect", expected=expected, found=repr(expect))


def _journal_bytes(run: Path) -> bytes:
    try:
        return (run / JOURNAL).read_bytes()
    except OSError as error:
        expected = "the directory of a run, with a journal.jsonl"
        raise RunError("there is no journal to read", where=run, expected=expected, found=error.strerror) from error


def _check_journal(journal: Chain) -> Check:
    damage = journal.damage
    if not journal.records or journal.records[0].get("kind") != "run_created":
        damage = (*damage, Damage(f"{JOURNAL}, line 1", "the journal does not begin with the run", "run_created"))
    return Check(
        "journal", "each line's digest, and the next line's link to it", counted(journal.lines, "line"), damage
    )


def _stands(records: Records, expect: str | None) -> int | None:
    if expect is None:
        return None
    places = (place for place, record in enumerate(reversed(records)) if record[DIGEST].startswith(expect))
    return next(places, None)


def _check_expected(journal: Chain, expect: str) -> Check:
    damage: tuple[Damage, ...] = ()
    if _stands(journal.records, expect) is None:
        what = "no line has the digest that was written down: the journal was cut or replaced since"
        damage = (Damage(JOURNAL, what, expect, f"{counted(journal.lines, 'line')} up to {journal.head[:SHORTEST]}"),)
    return Check("journal's end", "the digest given with --expect", expect[:SHORTEST], damage)


def _check_configuration(run: Path, records: Records) -> Check:
    name, against = "configuration", "experiment_digest in the journal's first line"
    recorded = next((one.get("experiment_digest") for one in records if one.get("kind") == "run_created"), None)
    if recorded is None:
        return Check(name, against, CONFIGURATION, unchecked="the line with its digest is damaged or gone")
    return Check(name, against, CONFIGURATION, tuple(_file_damage(run / CONFIGURATION, CONFIGURATION, str(recorded))))


def _file_damage(path: Path, name: str, expected: str) -> Iterator[Damage]:
    try:
        found = sha256_of(path)
    except RunError as error:
        yield Damage(name, "the file cannot be read", f"digest {expected[:SHORTEST]}", str(error.found))
        return
    if found != expected:
        yield Damage(name, "the file was changed", f"digest {expected[:SHORTEST]}", f"digest {found[:SHORTEST]}")


def _check_ledgers(run: Path, folder: Path, journal: Records, *, sites: bool) -> Iterator[Check]:
    """One line for each ledger that is there, or that the journal knows of. sites: each may be at its site."""
    releases = releases_of(journal)
    there = {path.parent.name for path in folder.glob(f"*/{LEDGER}")}
    # On one machine all clients keep here what they keep: a ledger that is not here was taken away.
    on_one_machine = sites and folder.is_dir() and any(folder.iterdir())
    why = "it is at its site; see --ledgers" if sites else "it is not among those given"
    against = "its chain, and the journal's record of each release"
    for client in sorted(there | releases.keys()):
        path, known = folder / client / LEDGER, releases.get(client, [])
        name = path.relative_to(run).as_posix() if path.is_relative_to(run) else str(path)
        told = counted(len(known), "release")
        if client in there:
            try:
                chain = chain_of(path.read_bytes(), name)
            except OSError as error:
                yield Check(f"ledger of {client}", against, told, (_unreadable(name, error),))
                continue
            damage = (*chain.damage, *cut_lines(chain, known, name))
            yield Check(f"ledger of {client}", against, f"{counted(chain.lines, 'line')}, {told}", damage)
        elif on_one_machine:
            gone = Damage(name, "the ledger is gone", told, "no file")
            yield Check(f"ledger of {client}", against, told, (gone,))
        else:
            yield Check(f"ledger of {client}", against, told, unchecked=why)


def _unreadable(name: str, error: OSError) -> Damage:
    return Damage(name, "the file cannot be read", "its lines", str(error.strerror))


def _check_adapter(run: Path, records: Records) -> Check:
    name, against = "exported adapter", "the journal's digest of each of its files"
    ended = any(record.get("kind") == FINISHED for record in records)
    recorded = adapter_files(records)
    if recorded is None and not ended and (run / "adapter").is_dir():
        what = "the journal does not say that the run ended: its last lines were cut, or a process was killed just then"
        return Check(name, against, "", (Damage("adapter", what, f"a record {FINISHED}", "none"),))
    if recorded is None:
        why = "a version that recorded no digests wrote it" if ended else "the run has not ended"
        return Check(name, against, "", unchecked=why)
    try:
        found = file_digests(run / "adapter")
    except RunError as error:
        return Check(name, against, counted(len(recorded), "file"), (Damage("adapter", str(error)),))
    return Check(name, against, counted(len(recorded), "file"), tuple(_adapter_damage(recorded, found)))


def _adapter_damage(recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Damage]:
    for file in sorted(recorded.keys() | found.keys()):
        expected, now = str(recorded.get(file, ""))[:SHORTEST], found.get(file, "")[:SHORTEST]
        if expected != now:
            what = "the file was changed" if expected and now else "the file is gone" if expected else "the file is new"
            yield Damage(f"adapter/{file}", what, f"digest {expected}" if expected else "no file", now or "no file")


def _check_pieces(run: Path) -> Iterator[Check]:
    """Pieces may be deleted, and are made anew; one that is there is what its name says."""
    for folder in (run / "pieces", run / CLIENTS / ".trunk"):
        pieces = PieceStore(folder)
        names = list(pieces)
        name = folder.relative_to(run).as_posix()
        damage = tuple(
            one
            for digest in names
            for one in _file_damage(folder / f"{digest}.safetensors", f"{name}/{digest}.safetensors", digest)
        )
        if names:
            yield Check(f"pieces in {name}", "the digest that is each file's name", counted(len(names), "file"), damage)


def _check_kept(run: Path) -> Iterator[Check]:
    """What stays at clients has its digest in itself, and nowhere else."""
    stores = [ClientStore(folder) for folder in sorted((run / CLIENTS).glob("[!.]*")) if folder.is_dir()]
    for store in stores:
        damage, rounds = [], store.rounds()
        for round in rounds:
            try:
                store.load(round)
            except FedLoomError as error:
                where = f"{CLIENTS}/{store.directory.name}/{round:04d}.safetensors"
                damage.append(Damage(where, error.what, found=None if error.found is None else str(error.found)[:80]))
        if rounds:
            told = counted(len(rounds), "file")
            yield Check(f"kept by {store.directory.name}", "a digest in each file alone", told, tuple(damage))


def _checks_below(run: Path) -> Iterator[Check]:
    """Each run below this one (clients alone, runs it was compared with), in one line."""
    for journal in sorted(run.glob(f"alone/*/{JOURNAL}")) + sorted(run.glob(f"compared/**/{JOURNAL}")):
        name = journal.parent.relative_to(run).as_posix()
        below = audit_files(journal.parent)
        damage = tuple(Damage(f"{name}/{one.where}", one.what, one.expected, one.found) for one in below.damage)
        yield Check(f"run {name}", "a journal of its own, as above", counted(below.records, "line"), damage)
