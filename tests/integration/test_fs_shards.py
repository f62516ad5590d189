"""Shards and buckets as directories: what is a border and what is hidden."""

import errno
import os

import pytest
from support.twins import renameat2


def _fails(number, function, *args):
    with pytest.raises(OSError) as caught:
        function(*args)
    assert caught.value.errno == number, caught.value


def _record(hibfs, bucket, shard):
    """Makes what control/ keeps of a shard, in the source."""
    folder = hibfs.source / ".hibfs" / "shards" / bucket / shard
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text("{}")


@pytest.mark.req("F1")
def test_hibfs_own_directory_is_hidden(mounted):
    (mounted.source / ".hibfs").mkdir(mode=0o700, exist_ok=True)
    root = mounted.mount
    (mounted.source / ".hibfs" / "secret").touch()
    _fails(errno.ENOENT, os.stat, root / ".hibfs" / "secret")
    _fails(errno.ENOENT, os.rmdir, root / ".hibfs" / "secret")
    (root / "bucket").mkdir()
    for function in (os.rename, os.symlink):
        with pytest.raises(OSError):
            function(root / "bucket", root / ".hibfs" / "x")
    # Elsewhere it is a name like any other.
    (root / "bucket" / "shard" / ".hibfs").mkdir(parents=True)
    assert os.listdir(root / "bucket" / "shard") == [".hibfs"]
    assert (mounted.source / ".hibfs" / "secret").exists()


@pytest.mark.req("F1")
def test_nothing_crosses_the_border_of_a_shard(mounted):
    root = mounted.mount
    one, two = root / "bucket" / "one", root / "bucket" / "two"
    one.mkdir(parents=True)
    two.mkdir()
    (one / "file").write_text("x")
    (one / "folder").mkdir()
    for target in (two / "file", root / "bucket" / "file", root / "file"):
        _fails(errno.EXDEV, os.rename, one / "file", target)
        _fails(errno.EXDEV, os.link, one / "file", target)
    _fails(errno.EXDEV, os.rename, one / "folder", root / "bucket" / "three")
    _fails(errno.EXDEV, os.rename, two, one / "folder")
    (two / "file").touch()
    _fails(errno.EXDEV, renameat2, one / "file", two / "file", 2)


@pytest.mark.req("F1")
def test_a_plain_shard_is_renamed_with_files_open(mounted):
    bucket = mounted.mount / "bucket"
    (bucket / "tmp").mkdir(parents=True)
    with open(bucket / "tmp" / "file", "w+b") as file:
        file.write(b"before")
        file.flush()
        os.rename(bucket / "tmp", bucket / "final")
        file.write(b" after")
        file.flush()
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == 12
        assert (bucket / "final" / "file").read_bytes() == b"before after"
    # The old name is free, and another shard.
    (bucket / "tmp").mkdir()
    (bucket / "tmp" / "file").write_bytes(b"2")
    _fails(errno.ENOTEMPTY, os.rename, bucket / "tmp", bucket / "final")
    renameat2(bucket / "tmp", bucket / "final", 2)
    assert (bucket / "final" / "file").read_bytes() == b"2"
    assert (bucket / "tmp" / "file").read_bytes() == b"before after"
    _fails(errno.EXDEV, os.rename, bucket / "tmp" / "file", bucket / "final" / "x")


@pytest.mark.req("F1")
def test_a_bucket_is_renamed_unless_shards_are_recorded(mounted):
    root = mounted.mount
    (root / "bucket" / "shard").mkdir(parents=True)
    (root / "bucket" / "shard" / "file").write_text("x")
    os.rename(root / "bucket", root / "other")
    assert (root / "other" / "shard" / "file").read_text() == "x"
    _record(mounted, "other", "shard")
    _fails(errno.EBUSY, os.rename, root / "other", root / "bucket")
    _fails(errno.EXDEV, os.rename, root / "other" / "shard", root / "other" / "new")
    (root / "other" / "plain").mkdir()
    (root / "other" / "shard" / "file").unlink()
    _fails(
        errno.EXDEV, os.rename, root / "other" / "plain", root / "other" / "shard"
    )


@pytest.mark.req("F1")
def test_files_above_the_shards_are_files(mounted):
    root = mounted.mount
    (root / "bucket").mkdir()
    (root / "loose").write_text("1")
    os.rename(root / "loose", root / "bucket" / "loose")
    os.link(root / "bucket" / "loose", root / "again")
    assert (root / "again").read_text() == "1"
    (root / "bucket" / "loose").unlink()
    os.rmdir(root / "bucket")
    assert os.listdir(root) == ["again"]


@pytest.mark.req("F1")
def test_with_depth_1_each_root_directory_is_a_shard(make_hibfs, file_store):
    hibfs = make_hibfs(file_store, options=["shard_depth=1"]).start()
    root = hibfs.mount
    (root / "one").mkdir()
    (root / "two").mkdir()
    (root / "one" / "file").write_text("x")
    _fails(errno.EXDEV, os.rename, root / "one" / "file", root / "two" / "file")
    os.rename(root / "one", root / "three")
    assert (root / "three" / "file").read_text() == "x"
    assert sorted(os.listdir(root)) == ["three", "two"]
