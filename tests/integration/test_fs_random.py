"""Random operations do on the mount what they do on the source's file system."""

import os
import random

import pytest
from support.trees import assert_same_tree, tree_digest
from support.twins import Twins, same_as_source

_STEPS = 15000


def _digest(root):
    """Without times, which twins do not share."""
    digest = tree_digest(root, holes=False)
    for record in digest.values():
        del record["mtime_ns"]
    return digest


def _run(hibfs, disk, seed, users, steps=_STEPS):
    shard = hibfs.mount / "bucket" / "shard"
    shard.mkdir(parents=True)
    twin = disk / "twin"
    twin.mkdir()
    for root in (shard, twin):
        os.chmod(root, 0o777)
    twins = Twins(seed, shard, twin, users)
    umask = os.umask(0o022)
    try:
        for number in range(steps):
            try:
                twins.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {number}: {error}") from None
    finally:
        os.umask(umask)
        twins.close()
    assert_same_tree(_digest(twin), _digest(shard))
    assert not same_as_source(shard, hibfs.source / "bucket" / "shard")
    # Not a run in which everything failed.
    assert sum(good for good, _ in twins.done.values()) > steps / 6, twins.done


@pytest.mark.req("F1")
@pytest.mark.parametrize("passthrough", ["on", "off"])
@pytest.mark.parametrize(
    "users", [(0,), (0, 1001, 1002), (1001, 1002)], ids=["root", "mixed", "users"]
)
def test_random_operations_do_the_same(
    make_hibfs, file_store, source, mountpoint, disk, passthrough, users
):
    options = [] if passthrough == "on" else ["passthrough=off"]
    hibfs = make_hibfs(file_store, source, mountpoint, options=options).start()
    _run(hibfs, disk, seed=len(users) * 7 + len(options), users=users)


@pytest.mark.req("F1")
@pytest.mark.long
@pytest.mark.deadline(1200)
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_random_operations_on_each_file_system(make_hibfs, file_store, loop_fs, kind):
    root = loop_fs(kind, "2G")
    for number in range(8):
        base = root / f"r{number}"
        source = base / "source"
        source.mkdir(parents=True)
        hibfs = make_hibfs(file_store, source, base / "mnt").start()
        _run(hibfs, base, random.randrange(1 << 30), (0, 1001, 1002))
        hibfs.stop()


@pytest.mark.req("F1")
@pytest.mark.parametrize("passthrough", ["on", "off"])
def test_many_processes_in_one_directory(
    make_hibfs, file_store, source, mountpoint, passthrough
):
    options = [] if passthrough == "on" else ["passthrough=off"]
    hibfs = make_hibfs(file_store, source, mountpoint, options=options).start()
    shard = hibfs.mount / "bucket" / "shard"
    shard.mkdir(parents=True)
    children = []
    for seed in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _disturb(seed, shard)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert not same_as_source(shard, hibfs.source / "bucket" / "shard")
    hibfs.stop()


def _disturb(seed, shard):
    """Random operations among those of others: only that they end counts."""
    twins = Twins(seed, shard, shard)
    # Another's truncation turns a store through a mapping into SIGBUS.
    twins.OPERATIONS = [o for o in twins.OPERATIONS if o[0] is not Twins.op_mmap]
    for _ in range(3000):
        try:
            twins.step()
        except (AssertionError, OSError, ValueError):
            # What one call finds the next may not.
            pass
    twins.close()
