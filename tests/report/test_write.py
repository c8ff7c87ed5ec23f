"""The report on a disk that is full: an error that can be read, and the old report stays."""

import errno
import os

import pytest

from fedloom.errors import RunError
from fedloom.report import write
from fedloom.spec.dump import dump
from fedloom.store.run_directory import RunDirectory


def test_a_report_that_cannot_be_written_leaves_the_old_one(experiment, journal, tmp_path, monkeypatch):
    with RunDirectory.create(tmp_path / "trial", dump(experiment), {}) as directory:
        for record in journal:
            fields = {key: value for key, value in record.items() if key not in ("number", "time", "kind")}
            directory.journal.append(record["kind"], **fields)
        write.write_report(directory)
        before = directory.report.read_bytes()

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunError, match=r"report.html: the disk is full.*run itself is intact.*then report again"):
            write.write_report(directory)
    assert directory.report.read_bytes() == before
    assert not list(directory.path.glob(".report*"))
