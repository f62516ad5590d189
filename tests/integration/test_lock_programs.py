"""Locks against programs that go on working, a database among them.

test_lock.py tries each kind of change by itself.
"""

import contextlib
import fcntl
import mmap
import multiprocessing
import os
import signal
import sqlite3

import pytest

SHARD = "db/one"
OTHER = "db/two"
# How long something that must not happen is given to happen.
QUIET_SECONDS = 0.2
SECONDS = 20

_processes = multiprocessing.get_context("fork")


@pytest.fixture(params=["passthrough", "daemon"])
def hibfs(request, make_hibfs, file_store, source, mountpoint):
    """A mount with two shards: files in passthrough, or served by the daemon."""
    for shard in (SHARD, OTHER):
        (source / shard).mkdir(parents=True)
    options = ["passthrough=off"] if request.param == "daemon" else []
    return make_hibfs(file_store, source, mountpoint, options=options).start()


@pytest.fixture
def folder(hibfs):
    return hibfs.mount / SHARD


class Actor:
    """A process that does something each time it is told to."""

    def __init__(self, function, *args):
        self._here, there = _processes.Pipe()
        self._process = _processes.Process(
            target=self._run, args=(there, function, args), daemon=True
        )
        self._process.start()
        there.close()

    def _run(self, there, function, args):
        self._here.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for action in function(*args):
            there.recv()
            try:
                there.send((0, action()))
            except OSError as error:
                there.send((error.errno, None))

    @property
    def pid(self):
        return self._process.pid

    def tell(self):
        self._here.send(None)
        return self

    def has_answered(self, seconds=QUIET_SECONDS):
        return self._here.poll(seconds)

    def answer(self):
        assert self._here.poll(SECONDS), "it still waits"
        return self._here.recv()

    def do(self):
        return self.tell().answer()

    def kill(self):
        self._process.kill()
        self._process.join()


@pytest.fixture
def hire():
    """hire(function, *args): a process for each step that the generator yields."""
    actors = []

    def make(function, *args):
        actors.append(Actor(function, *args))
        return actors[-1]

    yield make
    for actor in actors:
        actor.kill()


@contextlib.contextmanager
def locked(hibfs, target=SHARD, *options):
    hibfs.ctl("lock", target, "--ttl", "1m", "--owner", "test", *options)
    try:
        yield
    finally:
        hibfs.ctl("unlock", target, "--owner", "test")


# --- what waits and what goes on ----------------------------------------------


def writes_to(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    number = 0
    while True:
        number += 1
        yield lambda: os.write(file, b"%d\n" % number)


@pytest.mark.req("L2")
def test_what_waits_is_done_in_order(hibfs, folder, hire):
    def renames(number):
        yield lambda: os.symlink(str(number), folder / f"link{number}")

    actors = [hire(renames, number) for number in range(20)]
    with locked(hibfs):
        for actor in actors:
            actor.tell()
            assert not actor.has_answered(0)
    for actor in actors:
        assert actor.answer() == (0, None)
    assert len(os.listdir(folder)) == 20


# --- what is in the snapshot --------------------------------------------------


def maps(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, mmap.PAGESIZE)
    memory = mmap.mmap(file, mmap.PAGESIZE)
    os.close(file)
    for value in b"abc":
        yield lambda: memory.__setitem__(0, value)


@pytest.mark.req("L3")
def test_stores_before_the_lock_count_and_later_ones_do_not_pass_unnoticed(
    hibfs, folder, hire
):
    mapper = hire(maps, folder / "file")
    assert mapper.do()[0] == 0
    hibfs.ctl("lock", SHARD, "--ttl", "1m", "--owner", "test")
    backing = hibfs.source / SHARD / "file"
    assert backing.read_bytes()[:1] == b"a"
    assert mapper.do()[0] == 0
    in_lock = backing.read_bytes()[:1]
    answer = hibfs.ctl("unlock", SHARD, "--owner", "test", check=False)
    # Either the store has not reached the source, or it is reported.
    said = answer.stdout + answer.stderr + hibfs.log_text()
    assert in_lock == b"a" or f"{SHARD}/file" in said


@pytest.mark.req("L3")
def test_a_database_under_load_is_whole_in_every_lock(hibfs, folder, hire, tmp_path):
    def inserts(path):
        database = sqlite3.connect(path, timeout=60, isolation_level=None)
        database.execute("pragma journal_mode=wal")
        database.execute("create table t(a integer primary key, b blob)")

        def insert_many():
            for _ in range(400):
                database.execute("begin")
                database.executemany(
                    "insert into t(b) values(?)", [(os.urandom(3000),)] * 5
                )
                database.execute("commit")

        yield insert_many

    writer = hire(inserts, folder / "db")
    writer.tell()
    rows = []
    for number in range(8):
        with locked(hibfs):
            copy = tmp_path / f"copy{number}"
            copy.mkdir()
            for file in (hibfs.source / SHARD).iterdir():
                if not file.name.endswith("-shm"):
                    (copy / file.name).write_bytes(file.read_bytes())
        if not (copy / "db").exists():
            continue
        with contextlib.closing(sqlite3.connect(copy / "db")) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
            if database.execute("select * from sqlite_master").fetchone():
                rows.append(database.execute("select count(*) from t").fetchone()[0])
    assert rows == sorted(rows)
    assert all(count % 5 == 0 for count in rows)
    assert writer.answer()[0] == 0


@pytest.mark.req("L1", "L3", "A6")
def test_a_daemon_without_root_locks(make_hibfs, file_store, hire, disk):
    user = 65534
    os.chown(disk / "store", user, user)
    hibfs = make_hibfs(file_store, uid=user).start()
    folder = hibfs.mount / SHARD
    backing = hibfs.source / SHARD

    def steps():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        folder.mkdir(parents=True)
        yield from maps(folder / "mapped")
        yield from writes_to(folder / "written")

    actor = hire(steps)
    assert actor.do()[0] == 0
    with locked(hibfs):
        assert (backing / "mapped").read_bytes()[:1] == b"a"
        assert actor.do()[0] == actor.do()[0] == 0
        assert (backing / "mapped").read_bytes()[:1] == b"a"
    # Opens, writes; then it is to wait.
    assert actor.do() == (0, 2)
    with locked(hibfs):
        actor.tell()
        assert not actor.has_answered()
    assert actor.answer() == (0, 2)


# --- who holds it, and how it ends --------------------------------------------


@pytest.mark.req("L5")
def test_the_death_of_the_daemon_unlocks(hibfs, folder, hire):
    writer = hire(writes_to, folder / "file")
    assert writer.do()[0] == 0
    hibfs.ctl("lock", SHARD, "--ttl", "1m", "--owner", "test")
    writer.tell()
    assert not writer.has_answered()
    hibfs.kill9()
    # In passthrough it goes on; else there is nobody who could serve it.
    assert writer.answer()[0] in (0, 103, 107)  # ECONNABORTED, ENOTCONN
    hibfs.start()
    assert (folder / "file").read_bytes() in (b"1\n", b"1\n2\n")
    with locked(hibfs):
        pass


@pytest.mark.req("L5")
def test_stopping_the_daemon_unlocks(hibfs, folder, hire):
    writer = hire(writes_to, folder / "file")
    assert writer.do()[0] == 0
    hibfs.ctl("lock", SHARD, "--ttl", "1m", "--owner", "test")
    writer.tell()
    assert not writer.has_answered()
    hibfs.process.signal(signal.SIGTERM)
    assert writer.answer()[0] in (0, 5, 103, 107)


# --- many ---------------------------------------------------------------------


@pytest.mark.req("L8")
def test_a_thousand_open_files_are_locked_and_unlocked_many_times(hibfs, folder, hire):
    def appends():
        files = [
            os.open(folder / f"f{i}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
            for i in range(1000)
        ]

        def run():
            for number in range(30000):
                os.write(files[number % 1000], b"%8d" % number)

        yield lambda: None
        yield run

    writer = hire(appends)
    assert writer.do() == (0, None)
    writer.tell()
    for _ in range(10):
        with locked(hibfs):
            before = [f.stat().st_size for f in (hibfs.source / SHARD).iterdir()]
            writer.has_answered(0.02)
            after = [f.stat().st_size for f in (hibfs.source / SHARD).iterdir()]
            assert before == after
    assert writer.answer() == (0, None)
    for i in range(1000):
        expected = b"".join(b"%8d" % n for n in range(i, 30000, 1000))
        assert (folder / f"f{i}").read_bytes() == expected


@pytest.mark.req("L1")
def test_kernel_locks_go_on(hibfs, folder):
    with open(folder / "file", "wb") as file, locked(hibfs):
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
