"""Verify what `fedloom audit RUN --export` wrote: python verify.py [--expect DIGEST], in any Python from 3.9 on.

Exit code 0: nothing here was changed since it was written, as far as digests tell; 2: what is printed was. SHA-256 of
every file is in bundle.json; of each line of journal.jsonl and ledger.jsonl in the line itself, and in the next one as
previous; of experiment.toml in the journal's first line, of a manifest in round_committed, of a round's files in that.
A contribution under noise is in its client's ledger, behind the line that the journal names; alone/CLIENT is a run too,
with the line that the journal names. Whoever writes all files anew is found out by --expect: a head noted elsewhere.
"""

import hashlib
import json
import sys
from pathlib import Path

changed: list = []  # one sentence each


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def same(where, expected, found):
    if expected != found:
        changed.append(f"{where}: expected {str(expected)[:64]}, found {str(found)[:64]}")


def chain(path):
    records, previous = [], "0" * 64
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            record = json.loads(line)
            rest = {key: record[key] for key in sorted(record) if key != "record_digest"}
            text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            same(f"{path}, line {number}, digest", record["record_digest"], sha256(text.encode()))
            same(f"{path}, line {number}, bytes", json.dumps(record, ensure_ascii=False).encode() + b"\n", line)
            same(f"{path}, line {number}, place", [number, previous], [record["number"], record["previous"]])
            previous = record["record_digest"]
            records.append(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            changed.append(f"{path}, line {number}: no record")
    return records, previous


def check_ledger(path, client, journal):
    ledger = chain(path)[0] if path.is_file() else []
    print(f"ledger of {client}: {f'{len(ledger)} lines' if ledger else 'NOT IN THIS BUNDLE'}")
    heads = ["0" * 64, *(line["record_digest"] for line in ledger)]
    for record in (one for one in journal if ledger and "ledger" in one and one["client"] == client):
        place = heads.index(record["ledger"]) if record["ledger"] in heads else len(ledger)
        found: dict = next((line for line in ledger[place:] if line["kind"] == "released"), {})
        for name in ("round", "epsilon", "delta", "noise_multiplier", "sampling_rate"):
            same(f"{path}, round {record['round']}, {name}", record[name], found.get(name))


def check_run(folder):
    committed: dict = {}
    journal, head = chain(folder / "journal.jsonl")
    same(folder / "experiment.toml", journal[0]["experiment_digest"], sha256((folder / "experiment.toml").read_bytes()))
    for record in (one for one in journal if one["kind"] in ("round_committed", "rolled_back")):
        committed = {known: digest for known, digest in committed.items() if known <= record["round"]}
        committed |= {record["round"]: record["digest"]} if record["kind"] == "round_committed" else {}
    for place, digest in ((folder / "rounds" / f"{number:04d}", committed[number]) for number in committed):
        same(place / "manifest.json", digest, sha256((place / "manifest.json").read_bytes()))
        listed = json.loads((place / "manifest.json").read_text())["files"]
        present = [name for name in listed if (place / name).is_file()]
        print(f"{folder}, round {int(place.name)}: manifest, and {len(present)} of its {len(listed)} files")
        for name in present:
            same(place / name, listed[name]["sha256"], sha256((place / name).read_bytes()))
    clients = {path.parent.name for path in folder.glob("clients/*/ledger.jsonl")}
    for client in sorted(clients | {record["client"] for record in journal if "ledger" in record}):
        check_ledger(folder / "clients" / client / "ledger.jsonl", client, journal)
    below = {path.name: [one["record_digest"] for one in check_run(path)[0]] for path in sorted(folder.glob("alone/*"))}
    for client, end in ((one["client"], one["alone_head"]) for one in journal if "alone_head" in one):
        same(f"{folder}/alone/{client}, has the line with digest {end}", True, end in below.get(client, ()))
    return journal, head


def main(folder, expect=""):
    bundle = json.loads(text := (folder / "bundle.json").read_text(encoding="utf-8"))
    same("bundle.json, bytes", json.dumps(bundle, indent=1, sort_keys=True) + "\n", text)
    for name, digest in bundle["files"].items():
        same(name, digest, sha256((folder / name).read_bytes()))
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    same("files that are not listed", [], sorted(present - {*bundle["files"], "bundle.json"}))
    journal, head = check_run(folder)
    same("bundle.json, head", bundle["head"], head)
    same(f"a line with digest {expect}", True, any(one["record_digest"].startswith(expect) for one in journal))
    print(f"journal: {len(journal)} lines, head {head}")


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3) or sys.argv[1:2] not in ([], ["--expect"]):
        sys.exit("usage: python verify.py [--expect DIGEST]")
    try:
        main(Path(__file__).resolve().parent, *sys.argv[2:])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        changed.append(f"the bundle cannot be read any further: {error!r}")
    print("\n".join(changed) if changed else "Nothing in this bundle was changed since it was written.")
    sys.exit(2 if changed else 0)
