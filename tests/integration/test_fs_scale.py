"""Many files, many open ones, large directories and files."""

import os
import resource

import pytest

TIB = 1 << 40


@pytest.fixture
def shard(mounted):
    """A live shard's directory."""
    path = mounted.mount / "bucket" / "shard"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def many_descriptors():
    """Lets this process have more than 10,000 open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, max(20_000, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.req("F4")
def test_ten_thousand_open_files(shard, many_descriptors):
    del many_descriptors
    opened = []
    try:
        for number in range(10_000):
            path = shard / f"file-{number}"
            opened.append(os.open(path, os.O_RDWR | os.O_CREAT))
            os.write(opened[-1], b"%d" % number)
        for number in range(0, 10_000, 7):
            os.unlink(shard / f"file-{number}")
        for number, descriptor in enumerate(opened):
            assert os.pread(descriptor, 10, 0) == b"%d" % number
            assert os.fstat(descriptor).st_nlink == (number % 7 != 0)
    finally:
        for descriptor in opened:
            os.close(descriptor)


@pytest.mark.req("F4")
@pytest.mark.deadline(300)
def test_a_directory_of_a_hundred_thousand_files(shard):
    folder = shard / "folder"
    folder.mkdir()
    names = [f"name-{number:06}" for number in range(100_000)]
    for name in names:
        os.mknod(folder / name)
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("2")
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat().st_mode for entry in entries}
    assert sorted(found) == names
    assert os.stat(folder / names[54_321]).st_size == 0
    for name in names[::2]:
        os.unlink(folder / name)
    assert sorted(os.listdir(folder)) == names[1::2]


@pytest.mark.req("F4")
def test_a_sparse_file_of_a_tebibyte(shard):
    with open(shard / "file", "w+b") as file:
        file.truncate(TIB)
        for offset in (0, TIB // 2, TIB - 5):
            os.pwrite(file.fileno(), b"bytes", offset)
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == TIB
        assert os.fstat(file.fileno()).st_blocks < 1000
        for offset in (0, TIB // 2, TIB - 5):
            assert os.pread(file.fileno(), 5, offset) == b"bytes"
        assert os.lseek(file.fileno(), 1 << 20, os.SEEK_DATA) <= TIB // 2
