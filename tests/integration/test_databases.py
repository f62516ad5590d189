"""Databases write through the mount before a pause and after a resume."""

import os
import sqlite3
import subprocess
import sys

import plyvel
import pytest
from support.hibfs import CtlError
from support.waiting import wait_until

SQLITE_WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute(f"pragma journal_mode={sys.argv[2]}")
db.execute("pragma synchronous=full")
db.execute("create table if not exists t (n integer primary key, v blob)")
(n,) = db.execute("select coalesce(max(n), -1) + 1 from t").fetchone()
while True:
    db.execute("insert into t values (?, randomblob(500))", (n,))
    print(n, flush=True)
    n += 1
"""


class Writer:
    """A process that says each row after it is committed."""

    def __init__(self, path, journal):
        self.rows = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", SQLITE_WRITER, str(path), journal],
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, rows):
        while len(self.rows) < rows:
            self.rows.append(int(self.process.stdout.readline()))

    def kill(self):
        self.process.kill()
        rest = self.process.communicate()[0]
        self.rows += [int(line) for line in rest.splitlines(True) if line[-1] == "\n"]


def sqlite_rows(path):
    with sqlite3.connect(path) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = [n for (n,) in db.execute("select n from t order by n")]
    db.close()
    return rows


@pytest.mark.req("F1", "L3", "P1", "P2")
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite_goes_through_pause_and_resume(mounted_on_each, journal):
    hibfs = mounted_on_each
    shard = hibfs.mount / "tenant" / "db"
    shard.mkdir(parents=True)
    rows = 0
    for round_number in range(2):
        writer = Writer(shard / "data.db", journal)
        writer.read(rows + 100 if round_number == 0 else 100)
        # in use: refused, and nothing is lost or stays locked
        with pytest.raises(CtlError) as caught:
            hibfs.ctl("pause", "tenant/db")
        assert str(writer.process.pid) in caught.value.stderr
        writer.read(len(writer.rows) + 50)
        writer.kill()
        rows += len(writer.rows)
        hibfs.ctl("pause", "tenant/db")
        hibfs.ctl("resume", "tenant/db")
        found = sqlite_rows(shard / "data.db")
        assert len(found) >= rows
        assert found == list(range(len(found)))
        rows = len(found)


@pytest.mark.req("F1", "P2")
def test_leveldb_goes_through_pause_and_resume(mounted_on_each, make_hibfs):
    hibfs = mounted_on_each
    shard = hibfs.mount / "tenant" / "lsm"
    shard.parent.mkdir()
    expected = {}
    for round_number in range(2):
        db = plyvel.DB(
            str(shard), create_if_missing=True, write_buffer_size=256 << 10
        )
        for number in range(4000):
            key = f"{round_number}-{number * 7919 % 4000:06}".encode()
            expected[key] = os.urandom(200)
            db.put(key, expected[key], sync=number % 500 == 0)
        db.compact_range()
        db.close()
        hibfs.ctl("pause", "tenant")
        hibfs.ctl("resume", "tenant")
        db = plyvel.DB(str(shard), paranoid_checks=True)
        assert dict(db.iterator(verify_checksums=True)) == expected
        db.close()
    hibfs.ctl("pause", "tenant")
    hibfs.stop()
    other = make_hibfs(hibfs.store, options=["node=other"]).start()
    other.ctl("resume", "tenant")
    db = plyvel.DB(str(other.mount / "tenant/lsm"), paranoid_checks=True)
    assert dict(db.iterator(verify_checksums=True)) == expected
    db.close()


@pytest.mark.req("L3")
def test_a_database_copied_under_a_lock_is_consistent(mounted, tmp_path):
    shard = mounted.mount / "tenant" / "db"
    shard.mkdir(parents=True)
    writer = Writer(shard / "data.db", "wal")
    writer.read(200)
    for _ in range(5):
        mounted.ctl("lock", "--ttl", "30s", "--owner", "copy", "tenant/db")
        acknowledged = len(writer.rows)
        copy = tmp_path / "copy"
        subprocess.run(
            ["cp", "-r", str(mounted.source / "tenant/db"), str(copy)], check=True
        )
        mounted.ctl("unlock", "--owner", "copy", "tenant/db", check=False)
        found = sqlite_rows(copy / "data.db")
        assert found == list(range(len(found)))
        assert len(found) >= acknowledged
        subprocess.run(["rm", "-r", str(copy)], check=True)
        writer.read(len(writer.rows) + 50)
    writer.kill()
    wait_until(lambda: writer.process.poll() is not None, "the writer has ended")
