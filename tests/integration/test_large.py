"""Sizes that matter: many files, much data, huge holes; and bounded memory."""

import os
import random

import pytest
from support.trees import assert_same_tree, disk_bytes, sync_tree, tree_digest

MIB = 1 << 20


def memory_peak(hibfs):
    """The daemon's largest resident size, bytes."""
    with open(f"/proc/{hibfs.process.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def fill(shard, files, total):
    rng = random.Random(7)
    block = rng.randbytes(4 * MIB)
    for number in range(files):
        folder = shard / f"{number % 17:02}"
        folder.mkdir(parents=True, exist_ok=True)
        size = rng.randrange(total // files * 2)
        with open(folder / f"{number}.seg", "wb") as file:
            file.write(number.to_bytes(8, "little"))
            while size > 0:
                start = rng.randrange(2 * MIB)
                part = block[start : start + min(size, 2 * MIB)]
                file.write(part)
                size -= len(part)


def there_and_back(make_hibfs, store, files, total):
    first = make_hibfs(store, options=["node=first"]).start()
    shard = first.mount / "tenant" / "shard"
    shard.mkdir(parents=True)
    fill(shard, files, total)
    sync_tree(first.source)
    before = tree_digest(first.source / "tenant" / "shard")
    first.ctl("pause", "tenant/shard", seconds=600)
    assert disk_bytes(first.source) < 32 * MIB
    first.ctl("resume", "tenant/shard", seconds=600)
    assert_same_tree(before, tree_digest(first.source / "tenant" / "shard"))
    first.ctl("pause", "tenant/shard", seconds=600)
    assert memory_peak(first) < 200 * MIB
    first.stop()
    second = make_hibfs(store, options=["node=second"]).start()
    second.ctl("resume", "tenant/shard", seconds=600)
    assert_same_tree(before, tree_digest(second.source / "tenant" / "shard"))
    assert memory_peak(second) < 200 * MIB


@pytest.mark.req("P2", "P3", "T1")
def test_a_thousand_files_go_there_and_back(make_hibfs, s3_store):
    there_and_back(make_hibfs, s3_store, 1000, 128 * MIB)


@pytest.mark.long
@pytest.mark.deadline(1200)
@pytest.mark.req("P2", "P3")
def test_two_gigabytes_go_there_and_back(make_hibfs, s3_store):
    there_and_back(make_hibfs, s3_store, 1000, 2048 * MIB)


@pytest.mark.parametrize(
    "files", [5000, pytest.param(100_000, marks=[pytest.mark.long])]
)
@pytest.mark.deadline(600)
def test_many_small_files(mounted, files):
    shard = mounted.source / "tenant" / "shard"
    for number in range(files):
        folder = shard / f"{number % 100:02}"
        if number < 100:
            folder.mkdir(parents=True)
        (folder / str(number)).write_bytes(b"%d" % number * (number % 40))
    mounted.ctl("pause", "tenant/shard", seconds=300)
    mounted.ctl("resume", "tenant/shard", seconds=300)
    for number in range(files):
        content = (shard / f"{number % 100:02}" / str(number)).read_bytes()
        assert content == b"%d" % number * (number % 40)
    assert memory_peak(mounted) < 200 * MIB


@pytest.mark.req("P3")
def test_a_sparse_terabyte_takes_no_time_and_stays_sparse(mounted):
    shard = mounted.mount / "tenant" / "shard"
    shard.mkdir(parents=True)
    with open(shard / "huge", "wb") as file:
        file.truncate(1 << 40)
        for at in (0, 5 << 30, (1 << 40) - 7):
            file.seek(at)
            file.write(b"island!")
    mounted.ctl("pause", "tenant/shard")
    mounted.ctl("resume", "tenant/shard")
    info = os.stat(shard / "huge")
    assert info.st_size == 1 << 40
    assert info.st_blocks * 512 < MIB
    with open(shard / "huge", "rb") as file:
        for at in (0, 5 << 30, (1 << 40) - 7):
            file.seek(at)
            assert file.read(7) == b"island!"
        assert os.lseek(file.fileno(), 1 << 30, os.SEEK_DATA) == 5 << 30
