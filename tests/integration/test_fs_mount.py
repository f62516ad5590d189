"""Mounting, unmounting, and what is in the way."""

import os
import signal
import subprocess

import pytest
from support.hibfs import mounts_at
from support.waiting import wait_until

# fusermount3 wants a user with a name.
NOBODY = 65534


def _write(hibfs, text):
    shard = hibfs.mount / "bucket" / "shard"
    shard.mkdir(parents=True, exist_ok=True)
    (shard / "file").write_text(text)


@pytest.mark.req("F3")
def test_a_dead_mount_is_replaced(mounted):
    _write(mounted, "before")
    mounted.process.signal(signal.SIGKILL)
    mounted.process.wait()
    with pytest.raises(OSError):
        os.statvfs(mounted.mount)
    mounted.start()
    assert (mounted.mount / "bucket" / "shard" / "file").read_text() == "before"
    assert len(mounts_at(mounted.mount)) == 1


@pytest.mark.req("F3")
def test_a_live_mount_is_not_replaced(mounted, make_hibfs, file_store):
    _write(mounted, "first")
    other = make_hibfs(file_store, mount=mounted.mount)
    other.spawn()
    assert other.process.wait() != 0
    assert "in use" in other.process.tail()
    assert (mounted.mount / "bucket" / "shard" / "file").read_text() == "first"


@pytest.mark.req("F3")
def test_mounted_over_its_own_source(make_hibfs, file_store, source):
    (source / "bucket" / "shard").mkdir(parents=True)
    (source / "bucket" / "shard" / "file").write_text("there before")
    hibfs = make_hibfs(file_store, source, source).start()
    path = hibfs.mount / "bucket" / "shard" / "file"
    assert path.read_text() == "there before"
    path.write_text("through the mount")
    hibfs.stop()
    assert path.read_text() == "through the mount"


@pytest.mark.req("F3")
def test_umount_ends_the_daemon(mounted):
    _write(mounted, "x")
    subprocess.run(["umount", str(mounted.mount)], check=True)
    assert mounted.process.wait() == 0
    assert (mounted.source / "bucket" / "shard" / "file").read_text() == "x"


@pytest.mark.req("F3")
def test_sigterm_ends_it_while_files_are_open(mounted):
    _write(mounted, "x")
    with open(mounted.mount / "bucket" / "shard" / "file", "rb"):
        mounted.stop()
        assert not mounts_at(mounted.mount)
    mounted.start()


@pytest.mark.req("A6")
def test_runs_without_root(make_hibfs, file_store):
    hibfs = make_hibfs(file_store, uid=NOBODY)
    os.chmod(file_store.directory, 0o777)
    hibfs.start()
    shard = hibfs.mount / "bucket" / "shard"
    script = f"""
import os
os.makedirs("{shard}/folder")
for number in range(2000):
    open(f"{shard}/folder/{{number}}", "w").write(str(number))
held = open("{shard}/folder/5", "r+")
os.unlink("{shard}/folder/5")
held.write("more")
held.flush()
os.fsync(held.fileno())
assert os.fstat(held.fileno()).st_nlink == 0
os.rename("{shard}/folder", "{shard}/other")
assert len(os.listdir("{shard}/other")) == 1999
for number in range(6, 2000):
    assert open(f"{shard}/other/{{number}}").read() == str(number)
try:
    os.chown("{shard}/other", 0, 0)
    raise SystemExit("chown went through")
except PermissionError:
    pass
"""
    subprocess.run(
        ["/usr/bin/python3", "-c", script], user=NOBODY, group=NOBODY, check=True
    )
    # by root: fusermount3 -u needs an /etc/mtab, which a bare chroot lacks
    subprocess.run(["umount", str(hibfs.mount)], check=True)
    wait_until(lambda: hibfs.process.status is not None, "the daemon ends")
    assert hibfs.process.status == 0
