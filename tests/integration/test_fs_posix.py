"""Single behaviours of the mount that applications rely on."""

import errno
import fcntl
import mmap
import os
import stat
import subprocess

import pytest
from support.twins import fallocate, renameat2

KIB = 1024
MIB = 1024 * KIB
USER = 1001


@pytest.fixture(params=["passthrough", "served"])
def shard(request, make_hibfs, file_store, source, mountpoint):
    """A live shard's directory, with the kernel doing the I/O and without."""
    options = [] if request.param == "passthrough" else ["passthrough=off"]
    hibfs = make_hibfs(file_store, source, mountpoint, options=options).start()
    path = hibfs.mount / "bucket" / "shard"
    path.mkdir(parents=True)
    os.chmod(path, 0o777)
    return path


def _as_user(*command, uid=USER, groups=None, umask=None):
    """Runs a command as another user, who must succeed."""
    # User and groups are set by the child itself, so no shell quoting is needed.
    done = subprocess.run(
        [str(part) for part in command],
        user=uid,
        group=uid,
        extra_groups=groups or [],
        umask=-1 if umask is None else umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def _fails(number, function, *args):
    with pytest.raises(OSError) as caught:
        function(*args)
    assert caught.value.errno == number, caught.value


@pytest.mark.req("F1")
def test_open_unlinked_file_keeps_working(shard):
    name = shard / "file"
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"before")
    os.unlink(name)
    assert not name.exists()
    os.pwrite(descriptor, b"after", 6)
    os.fsync(descriptor)
    os.fchmod(descriptor, 0o640)
    os.ftruncate(descriptor, 9)
    os.setxattr(descriptor, "user.x", b"y")
    info = os.fstat(descriptor)
    assert (info.st_size, info.st_nlink, stat.S_IMODE(info.st_mode)) == (9, 0, 0o640)
    assert os.pread(descriptor, 100, 0) == b"beforeaft"
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    assert os.read(again, 100) == b"beforeaft"
    os.close(again)
    os.close(descriptor)


@pytest.mark.req("F1")
def test_removed_working_directory_can_still_be_asked(shard):
    folder = shard / "folder"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(folder)
    assert os.fstat(descriptor).st_nlink == 0
    assert os.listdir(descriptor) == []
    os.close(descriptor)


@pytest.mark.req("F1")
def test_rename_over_an_open_file(shard):
    (shard / "old").write_bytes(b"old")
    (shard / "new").write_bytes(b"new!")
    with open(shard / "old", "r+b") as file:
        os.rename(shard / "new", shard / "old")
        assert file.read() == b"old"
        assert (shard / "old").read_bytes() == b"new!"
        file.write(b" more")
    assert (shard / "old").read_bytes() == b"new!"
    assert (shard / "old").stat().st_size == 4


@pytest.mark.req("F1")
def test_rename_exchange_and_noreplace(shard):
    (shard / "file").write_bytes(b"file")
    (shard / "folder").mkdir()
    _fails(errno.EEXIST, renameat2, shard / "file", shard / "folder", 1)
    renameat2(shard / "file", shard / "folder", 2)
    assert (shard / "file").is_dir()
    assert (shard / "folder").read_bytes() == b"file"


@pytest.mark.req("F1")
def test_tmpfile_gets_a_name(shard):
    descriptor = os.open(shard, os.O_RDWR | os.O_TMPFILE, 0o600)
    os.write(descriptor, b"unnamed")
    # With a directory it is linkat(2), which alone follows the symlink.
    here = os.open(shard, os.O_RDONLY)
    os.link(f"/proc/self/fd/{descriptor}", "named", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    os.close(descriptor)
    assert (shard / "named").read_bytes() == b"unnamed"
    assert (shard / "named").stat().st_nlink == 1


@pytest.mark.req("F1")
def test_shared_mapping_is_one_with_reads_and_writes(shard):
    with open(shard / "file", "w+b") as file:
        file.truncate(MIB)
        mapping = mmap.mmap(file.fileno(), MIB)
        mapping[5000:5005] = b"store"
        assert os.pread(file.fileno(), 5, 5000) == b"store"
        os.pwrite(file.fileno(), b"write", 9000)
        assert mapping[9000:9005] == b"write"
        mapping.close()
    assert (shard / "file").read_bytes()[5000:5005] == b"store"


@pytest.mark.req("F1")
def test_direct_io(shard):
    descriptor = os.open(shard / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    block = mmap.mmap(-1, 4 * KIB)
    block[:] = b"d" * 4 * KIB
    assert os.pwritev(descriptor, [block], 8 * KIB) == 4 * KIB
    back = mmap.mmap(-1, 16 * KIB)
    assert os.preadv(descriptor, [back], 0) == 12 * KIB
    assert back[: 12 * KIB] == bytes(8 * KIB) + b"d" * 4 * KIB
    os.close(descriptor)
    assert (shard / "file").read_bytes() == bytes(8 * KIB) + b"d" * 4 * KIB


@pytest.mark.req("F1")
def test_appends_of_two_processes_do_not_overwrite_each_other(shard):
    script = "import os,sys\nf=os.open(sys.argv[1],os.O_WRONLY|os.O_APPEND|os.O_CREAT)\n"
    script += "for i in range(500): os.write(f,(sys.argv[2]*99+'\\n').encode())\n"
    command = ["/usr/bin/python3", "-c", script, str(shard / "log")]
    running = [subprocess.Popen([*command, letter]) for letter in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    lines = (shard / "log").read_text().splitlines()
    assert sorted(lines) == sorted(letter * 99 for letter in "abc" * 500)


@pytest.mark.req("F1")
def test_holes_stay_holes(shard):
    descriptor = os.open(shard / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"x" * 64 * KIB, MIB)
    os.fsync(descriptor)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == MIB
    assert os.lseek(descriptor, MIB, os.SEEK_HOLE) == MIB + 64 * KIB
    fallocate(descriptor, 3, MIB, 32 * KIB)
    os.fsync(descriptor)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == MIB + 32 * KIB
    assert os.pread(descriptor, 10, MIB) == bytes(10)
    os.close(descriptor)


@pytest.mark.req("F1")
def test_copy_file_range(shard):
    (shard / "from").write_bytes(os.urandom(300 * KIB))
    with open(shard / "from", "rb") as source, open(shard / "to", "w+b") as target:
        done = 0
        while done < 300 * KIB:
            done += os.copy_file_range(source.fileno(), target.fileno(), 300 * KIB)
    assert (shard / "from").read_bytes() == (shard / "to").read_bytes()


@pytest.mark.req("F1")
def test_locks_exclude(shard):
    first = open(shard / "file", "w+b")
    fcntl.flock(first, fcntl.LOCK_EX)
    second = open(shard / "file", "r+b")
    with pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(first, fcntl.LOCK_UN)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second.close()
    fcntl.lockf(first, fcntl.LOCK_EX)
    script = (
        "import fcntl,sys\nf=open(sys.argv[1],'r+b')\n"
        "try: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(7)\n"
    )
    command = ["/usr/bin/python3", "-c", script, str(shard / "file")]
    assert subprocess.run(command, check=False).returncode == 7
    first.close()
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.req("F1")
def test_hard_links_are_one_file(shard):
    (shard / "one").write_bytes(b"1")
    (shard / "folder").mkdir()
    os.link(shard / "one", shard / "folder" / "two")
    (shard / "folder" / "two").write_bytes(b"22")
    assert (shard / "one").read_bytes() == b"22"
    one, two = (shard / "one").stat(), (shard / "folder" / "two").stat()
    assert one.st_ino == two.st_ino and one.st_nlink == 2
    os.unlink(shard / "one")
    assert (shard / "folder" / "two").stat().st_nlink == 1


@pytest.mark.req("F1", "A6")
def test_new_files_belong_to_their_maker(shard):
    folder = shard / "folder"
    folder.mkdir()
    os.chown(folder, 0, 2001)
    os.chmod(folder, 0o2775)
    # Allowed by a supplementary group only, which sets the group too.
    _as_user("touch", folder / "file", groups=[2001], umask=0o027)
    _as_user("mkdir", folder / "sub", groups=[2001], umask=0o007)
    _as_user("ln", "-s", "x", folder / "symlink", groups=[2001])
    _as_user("mkfifo", folder / "fifo", groups=[2001])
    for name, mode in (("file", 0o640), ("sub", 0o2770), ("symlink", 0o777)):
        info = os.lstat(folder / name)
        assert (info.st_uid, info.st_gid) == (USER, 2001), name
        assert stat.S_IMODE(info.st_mode) == mode, name
    # And not for those outside of it.
    with pytest.raises(AssertionError):
        _as_user("touch", folder / "other", uid=1002)


@pytest.mark.req("F1")
def test_default_acl_comes_before_umask(shard):
    folder = shard / "folder"
    folder.mkdir()
    acl = "u::rwx,g::rwx,o::---,u:1002:rwx,m::rwx"
    subprocess.run(["setfacl", "-d", "-m", acl, folder], check=True)
    os.chmod(folder, 0o777)
    _as_user("touch", folder / "file", umask=0o077)
    _as_user("mkdir", folder / "sub", umask=0o077)
    acls = subprocess.run(
        ["getfacl", "-cpn", folder / "file", folder / "sub"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert acls.count("user:1002:rwx") == 3  # file, sub, and sub's default
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o660
    # It counts: 1002 is neither owner nor in the group.
    _as_user("sh", "-c", f"echo hello >{folder}/file", uid=1002)
    with pytest.raises(AssertionError):
        _as_user("cat", folder / "file", uid=1003)


@pytest.mark.req("F1")
@pytest.mark.parametrize("how", ["write", "truncate", "fallocate", "chown"])
def test_a_users_change_clears_set_id_bits(shard, how):
    path = shard / "file"
    path.write_bytes(b"x" * 100)
    os.chmod(path, 0o6777)
    change = {
        "write": f"import os\nos.pwrite(os.open('{path}',2),b'y',0)",
        "truncate": f"import os\nos.truncate('{path}',5)",
        "fallocate": f"import os\nos.posix_fallocate(os.open('{path}',2),0,9999)",
        "chown": f"import os\nos.chown('{path}',-1,2001)",
    }[how]
    if how == "chown":
        os.chown(path, USER, USER)
        os.chmod(path, 0o6777)
    _as_user("/usr/bin/python3", "-c", change, groups=[2001])
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


@pytest.mark.req("F1")
def test_set_id_bits_stay_where_root_sets_them(shard):
    path = shard / "file"
    path.write_bytes(b"x" * 100)
    os.chown(path, USER, 2001)
    os.chmod(path, 0o6755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6755
    os.setxattr(path, "user.a", b"b")
    os.utime(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6755


@pytest.mark.req("F1")
def test_trusted_attributes_are_hidden_from_users(shard):
    path = shard / "file"
    path.touch()
    os.setxattr(path, "trusted.secret", b"1")
    os.setxattr(path, "user.open", b"2")
    assert set(os.listxattr(path)) >= {"trusted.secret", "user.open"}
    names = _as_user(
        "/usr/bin/python3", "-c", f"import os\nprint(os.listxattr('{path}'))"
    )
    assert names.strip() == "['user.open']"


@pytest.mark.req("F1")
def test_inode_flags_pass(shard):
    path = shard / "file"
    path.touch()
    subprocess.run(["chattr", "+a", path], check=True)
    try:
        _fails(errno.EPERM, os.truncate, path, 0)
        assert "a" in subprocess.run(
            ["lsattr", "-d", path], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.split()[0]
    finally:
        subprocess.run(["chattr", "-a", path], check=True)


@pytest.mark.req("F1")
def test_times_are_to_the_nanosecond(shard):
    path = shard / "file"
    path.touch()
    os.utime(path, ns=(1_111_111_111_123_456_789, 1_222_222_222_987_654_321))
    info = path.stat()
    assert info.st_atime_ns == 1_111_111_111_123_456_789
    assert info.st_mtime_ns == 1_222_222_222_987_654_321
    before = info.st_mtime_ns
    with open(path, "r+b") as file:
        file.write(b"x")
        file.flush()
        assert os.fstat(file.fileno()).st_mtime_ns > before
    assert path.stat().st_mtime_ns > before


@pytest.mark.req("F1")
def test_seekdir_goes_back_to_where_it_was(shard):
    folder = shard / "folder"
    folder.mkdir()
    for number in range(3000):
        (folder / f"name-{number}").touch()
    names = os.listdir(folder)
    assert sorted(names) == sorted(f"name-{number}" for number in range(3000))
    descriptor = os.open(folder, os.O_RDONLY)
    assert sorted(os.listdir(descriptor)) == sorted(names)
    os.lseek(descriptor, 0, os.SEEK_SET)
    (folder / "name-7").unlink()
    assert len(os.listdir(descriptor)) == 2999
    os.close(descriptor)
