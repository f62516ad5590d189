"""Fixtures of the integration tests: real servers, real mounts, real disks.

They run as root on Linux with /dev/fuse; `make check` installs what they need.
A missing prerequisite is a failure, not a skip.
"""

import itertools
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from support import requirements
from support.disks import SUPPORTED, LoopDisk, kind_of
from support.faultproxy import FaultProxy
from support.hibfs import Hibfs
from support.rgw import Rgw
from support.stores import FileStore, S3Store

_DEADLINE_SECONDS = 120
_shown = {}


# --- servers ------------------------------------------------------------------


@pytest.fixture(scope="session")
def rgw(tmp_path_factory):
    """The S3 server (support/rgw.py), one for all tests."""
    server = Rgw.start(tmp_path_factory.mktemp("rgw"))
    yield server
    server.stop()


@pytest.fixture
def s3proxy(rgw, tmp_path):
    """A proxy in front of it that injects faults (support/faultproxy.py)."""
    proxy = FaultProxy(tmp_path / "s3proxy", rgw)
    yield proxy
    proxy.stop()


# --- stores -------------------------------------------------------------------


@pytest.fixture
def file_store(disk):
    """A store in a directory."""
    folder = disk / "store"
    folder.mkdir()
    return FileStore(folder)


@pytest.fixture
def s3_store(rgw):
    """A store in a fresh bucket of the S3 server."""
    return S3Store(rgw, rgw.fresh_bucket())


@pytest.fixture
def faulty_store(rgw, s3proxy):
    """A store in a fresh bucket, reached through `s3proxy`."""
    return S3Store(rgw, rgw.fresh_bucket(), endpoint=s3proxy.endpoint)


@pytest.fixture(params=["file", "s3"])
def store(request):
    """Runs the test twice: on a store of each kind."""
    return request.getfixturevalue(f"{request.param}_store")


# --- disks and mounts ---------------------------------------------------------


def _remove(folder):
    # Never into a mount that a failed test may have left.
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


@pytest.fixture(scope="session")
def _disk_root():
    """A directory on a file system that a source can lie on.

    Below $TMPDIR, or, where that is on none (tmpfs, overlay), a loop device.
    Unlike pytest's own directories every user can reach it.
    """
    folder = Path(tempfile.mkdtemp(prefix="hibfs-disk."))
    folder.chmod(0o755)
    if kind_of(folder) in SUPPORTED:
        yield folder
    else:
        disk = LoopDisk(folder / "loop", "ext4", "16G")
        yield disk.path
        disk.close()
    _remove(folder)


_numbers = itertools.count(1)


@pytest.fixture
def disk(_disk_root):
    """A fresh directory for this test on ext4, xfs or btrfs."""
    folder = _disk_root / f"t{next(_numbers)}"
    folder.mkdir()
    yield folder
    _remove(folder)


@pytest.fixture
def loop_fs(tmp_path):
    """loop_fs(kind, size) makes and mounts a file system: the path of its root."""
    disks = []

    def make(kind, size="1G"):
        disk = LoopDisk(tmp_path / f"loop{len(disks)}", kind, size)
        disks.append(disk)
        return disk.path

    yield make
    for disk in reversed(disks):
        disk.close()


@pytest.fixture
def source(disk):
    """An empty directory to mount hibfs over."""
    folder = disk / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def mountpoint(disk):
    """An empty directory to mount hibfs on."""
    folder = disk / "mnt"
    folder.mkdir()
    return folder


@pytest.fixture
def make_hibfs(disk):
    """make_hibfs(store, source=, mount=, options=, env=, uid=) gives a Hibfs.

    It is not started yet. Each call without source and mount makes directories
    of its own, as a second node has them.
    """
    instances = []

    def make(store=None, source=None, mount=None, **more):
        number = len(instances) + 1
        if source is None:
            source = disk / f"source{number}"
            source.mkdir()
        if mount is None:
            mount = disk / f"mnt{number}"
        instance = Hibfs(source, mount, store, **more)
        instances.append(instance)
        return instance

    yield make
    for instance in reversed(instances):
        instance.close()


@pytest.fixture
def mounted(make_hibfs, file_store, source, mountpoint):
    """A running hibfs with a store in a directory."""
    return make_hibfs(file_store, source, mountpoint).start()


@pytest.fixture
def mounted_on_each(make_hibfs, store, source, mountpoint):
    """A running hibfs, once with each kind of store."""
    return make_hibfs(store, source, mountpoint).start()


# --- deadlines and the report -------------------------------------------------


def pytest_addoption(parser):
    parser.addoption(
        "--requirements",
        action="store_true",
        help="end with the requirements that no test shows",
    )


def pytest_collection_modifyitems(items):
    known = requirements.requirements()
    for item in items:
        numbers = [n for mark in item.iter_markers("req") for n in mark.args]
        item.user_properties.append(("req", numbers))
        for number in numbers:
            if number not in known:
                raise pytest.UsageError(f"{item.nodeid}: no requirement {number}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    mark = item.get_closest_marker("deadline")
    seconds = mark.args[0] if mark else _DEADLINE_SECONDS

    def too_late(_number, _frame):
        pytest.fail(f"the test's deadline of {seconds} s has passed")

    # A system call that waits in FUSE is interrupted by the signal as well.
    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    # What the daemon said belongs to a failure.
    if call.when == "call" and outcome.get_result().failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Hibfs) and value.process is not None:
                outcome.get_result().sections.append(
                    ("hibfs log", value.process.tail(60))
                )


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        for number in dict(report.user_properties).get("req", ()):
            _shown.setdefault(number, []).append(report.nodeid)


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--requirements"):
        return
    shown = {**requirements.shown_by_unit_tests(), **_shown}
    terminalreporter.section("requirements")
    for line in requirements.report(shown):
        terminalreporter.line(line)


def pytest_sessionstart(session):
    del session
    if os.geteuid() != 0:
        raise pytest.UsageError("these tests mount file systems: run them as root")
    if not os.path.exists("/dev/fuse"):
        raise pytest.UsageError("there is no /dev/fuse (modprobe fuse)")
