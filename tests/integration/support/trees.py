"""Trees with everything that a file system can hold, and their comparison."""

import ctypes
import errno
import hashlib
import os
import random
import socket
import stat
import subprocess

KIB = 1024
MIB = 1024 * KIB
_TIME_NS = 1_234_567_890_123_456_789
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def random_bytes(size, seed=0):
    """`size` bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def write(path, data=b""):
    """Makes a file (bytes path) with content."""
    with open(path, "wb") as file:
        file.write(data)


def _write_sparse(path, size, pieces):
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


def _bind_socket(path):
    """A Unix socket file; its path may be longer than an address can be."""
    folder, name = os.path.split(path)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as node:
            node.bind(name)
    finally:
        os.fchdir(here)
        os.close(here)


def _files(top):
    folder = top + b"/files"
    os.mkdir(folder)
    write(folder + b"/empty")
    write(folder + b"/one", b"x")
    write(folder + b"/small", b"small\n" * 100)
    write(folder + b"/block", random_bytes(4096, 1))
    write(folder + b"/compressible", b"hibfs " * 200_000)
    # Around a chunk's end, and several chunks.
    for size in (256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 3 * MIB + 77):
        write(folder + b"/random-%d" % size, random_bytes(size, size))
    write(folder + b"/twice", random_bytes(256 * KIB, 256 * KIB))
    write(folder + b"/zeros-written", bytes(MIB))


def _holes(top):
    folder = top + b"/holes"
    os.mkdir(folder)
    _write_sparse(folder + b"/all", 10 * MIB, [])
    _write_sparse(folder + b"/odd-size", 10 * MIB + 123, [])
    data = random_bytes(64 * KIB, 7)
    _write_sparse(folder + b"/start", 4 * MIB, [(0, data)])
    _write_sparse(folder + b"/middle", 4 * MIB, [(MIB + 64 * KIB, data)])
    _write_sparse(folder + b"/end", 4 * MIB, [(4 * MIB - len(data), data)])
    _write_sparse(
        folder + b"/many", 4 * MIB, [(n * 256 * KIB, data) for n in range(1, 16)]
    )
    _write_sparse(folder + b"/huge", 1 << 40, [(1 << 39, data)])


def odd_names():
    """Names that a careless program stumbles over, as bytes."""
    return [
        b"new\nline",
        b"not-utf8-\xff\xfe\x80",
        b"n" * 255,
        "ü".encode() * 127,
        b" blank ",
        b"-rf",
        b"quote'\"\\",
        b"%2e%2e",
        b"...",
        b"~",
        b"*?[a]",
        b"tab\tbell\a\x7f",
        b"a:b|c<d>",
        b".hidden",
        b".hibfs-not",
        "é".encode(),
        "e\u0301".encode(),
    ]


def _names(top):
    folder = top + b"/names"
    os.mkdir(folder)
    for name in odd_names():
        write(folder + b"/" + name, name)
    for name in odd_names():
        os.mkdir(folder + b"/dir-" + name[:200])
        write(folder + b"/dir-" + name[:200] + b"/" + name, name)
    deep = folder
    for _ in range(30):
        deep += b"/deep"
        os.mkdir(deep)
    write(deep + b"/bottom", b"bottom")


def _links(top):
    folder = top + b"/links"
    os.mkdir(folder)
    os.mkdir(folder + b"/other")
    write(folder + b"/one", b"linked")
    os.link(folder + b"/one", folder + b"/two")
    os.link(folder + b"/one", folder + b"/other/three")
    os.symlink(b"one", folder + b"/symlink")
    os.symlink(b"/etc/../nowhere", folder + b"/dangling")
    os.symlink(b"../../../../etc/passwd", folder + b"/upwards")
    os.symlink(b"symlink-to-itself", folder + b"/symlink-to-itself")
    os.symlink(b"\xff\n" + b"t" * 1000, folder + b"/long-target")
    os.symlink(b"other", folder + b"/to-directory")
    os.link(folder + b"/symlink", folder + b"/symlink-again", follow_symlinks=False)


def _specials(top):
    folder = top + b"/special"
    os.mkdir(folder)
    os.mkfifo(folder + b"/fifo")
    os.link(folder + b"/fifo", folder + b"/fifo-again")
    _bind_socket(folder + b"/socket")
    if os.geteuid() == 0:
        os.mknod(folder + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(folder + b"/big", stat.S_IFCHR | 0o600, os.makedev(511, 0x12345))
        os.mknod(folder + b"/block", stat.S_IFBLK | 0o640, os.makedev(7, 99))


def _attributes(top):
    folder = top + b"/attributes"
    os.mkdir(folder)
    root = os.geteuid() == 0
    for mode in (0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o6711, 0o1777):
        write(folder + b"/mode-%04o" % mode, b"mode")
        os.mkdir(folder + b"/dir-%04o" % mode)
        if root:
            os.chown(folder + b"/mode-%04o" % mode, 1234, 5678)
        os.chmod(folder + b"/mode-%04o" % mode, mode)
        os.chmod(folder + b"/dir-%04o" % mode, mode)
    if root:
        write(folder + b"/owned", b"owned")
        os.chown(folder + b"/owned", 4_000_000_000, 65_534)
        os.symlink(b"owned", folder + b"/owned-symlink")
        os.lchown(folder + b"/owned-symlink", 77, 88)
    write(folder + b"/xattrs", b"xattrs")
    os.mkdir(folder + b"/xattrs-dir")
    for path in (folder + b"/xattrs", folder + b"/xattrs-dir"):
        os.setxattr(path, b"user.empty", b"")
        os.setxattr(path, b"user.binary", bytes(range(256)))
        os.setxattr(path, b"user.long", b"v" * 1500)
        os.setxattr(path, "user.näme".encode(), b"name")
        if root:
            os.setxattr(path, b"trusted.secret", b"\0\xff")
    if root:
        # cap_net_raw+ep; setting an owner or writing would remove it.
        capability = bytes.fromhex("0100000200200000000000000000000000000000")
        write(folder + b"/capability", b"")
        os.setxattr(folder + b"/capability", b"security.capability", capability)
    write(folder + b"/acl", b"acl")
    os.mkdir(folder + b"/acl-dir")
    _setfacl(folder + b"/acl", "u:1001:rw,g:1002:r,m::rw")
    _setfacl(folder + b"/acl-dir", "u:1001:rwx,d:u:1003:rx,d:g:1004:-")


def _setfacl(path, entries):
    subprocess.run([b"setfacl", b"-m", entries.encode(), b"--", path], check=True)


def _times(top):
    """Sets a time of its own on everything, from the leaves up."""
    number = 0
    for folder, folders, names in os.walk(top, topdown=False):
        for name in sorted(names) + sorted(folders) + [b""]:
            path = os.path.join(folder, name) if name else folder
            number += 1
            time_ns = _TIME_NS + number * 1_000_000_007
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    folder = top + b"/times"
    os.mkdir(folder)
    for name, time_ns in (
        (b"/before-1970", -1_000_000_001),
        (b"/epoch", 0),
        (b"/after-2038", (1 << 31) * 10**9 + 999_999_999),
    ):
        write(folder + name, b"time")
        os.utime(folder + name, ns=(time_ns, time_ns))
    for path in (folder, top):
        os.utime(path, ns=(_TIME_NS, _TIME_NS))


def make_rich_tree(path):
    """Fills `path` (made if need be) with everything a shard may hold.

    As root also owners, device nodes, trusted and security attributes. Returns
    tree_digest(path).
    """
    top = os.fsencode(path)
    os.makedirs(top, exist_ok=True)
    _files(top)
    _holes(top)
    _names(top)
    _links(top)
    _specials(top)
    os.makedirs(top + b"/empty-dirs/a/b/c")
    _attributes(top)
    _times(top)
    return tree_digest(path)


def _extents(file, size):
    """[(start, end)] of what is data, as SEEK_DATA and SEEK_HOLE tell."""
    found = []
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        found.append((start, end))
    return found




def _content(path, size, with_holes):
    """(SHA-256 of the bytes, extents). Holes are hashed by their length."""
    sha = hashlib.sha256()
    file = os.open(path, _OPEN_FLAGS)
    try:
        extents = _extents(file, size)
        # Written zeros and a hole are the same bytes, and a hole of a TiB is
        # not read: zero blocks count, with their offset, as nothing.
        for start, end in extents:
            offset = start - start % 4096
            os.lseek(file, offset, os.SEEK_SET)
            while offset < end:
                data = os.read(file, min(MIB, end - offset))
                if not data:
                    break
                for at in range(0, len(data), 4096):
                    block = data[at : at + 4096]
                    if block.count(0) != len(block):
                        sha.update(b"%d:" % (offset + at))
                        sha.update(block)
                offset += len(data)
    finally:
        os.close(file)
    return sha.hexdigest(), (extents if with_holes else None)


def _xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return {}
        raise
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        # Not what hibfs itself shows of a file, nor what XFS shows as a second
        # form of the ACLs.
        if not name.startswith(("user.hibfs.", "trusted.SGI_ACL_"))
    }


def _describe(path, info, with_holes):
    record = {
        "type": stat.S_IFMT(info.st_mode),
        "mode": oct(stat.S_IMODE(info.st_mode)),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime_ns": info.st_mtime_ns,
        "xattrs": _xattrs(path),
    }
    if not stat.S_ISDIR(info.st_mode):
        record["links"] = info.st_nlink
    if stat.S_ISREG(info.st_mode):
        record["size"] = info.st_size
        record["content"], record["extents"] = _content(
            path, info.st_size, with_holes
        )
    elif stat.S_ISLNK(info.st_mode):
        record["target"] = os.readlink(path)
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        record["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    return record


def tree_digest(path, holes=True):
    """{relative path: attributes} of a tree, for assert_same_tree().

    Everything that must survive: type, mode, owner, mtime, xattrs with ACLs,
    content, link target, device numbers, hard-link groups and, with holes,
    where the data lies. Not atime and ctime, nor the sizes of directories.
    """
    top = os.fsencode(path)
    digest = {}
    groups = {}
    pending = [b""]
    while pending:
        relative = pending.pop()
        full = os.path.join(top, relative) if relative else top
        info = os.lstat(full)
        digest[relative] = _describe(full, info, holes)
        if stat.S_ISDIR(info.st_mode):
            pending += [os.path.join(relative, name) for name in os.listdir(full)]
        elif info.st_nlink > 1:
            groups.setdefault((info.st_dev, info.st_ino), []).append(relative)
    for members in groups.values():
        for member in members:
            digest[member]["linked_with"] = sorted(members)
    return digest


def tree_differences(before, after):
    """The differences of two digests, as lines for people."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"{name!r}: is missing")
        elif name not in before:
            lines.append(f"{name!r}: should not be there")
        else:
            old, new = before[name], after[name]
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key):
                    lines.append(
                        f"{name!r}: {key} was {old.get(key)!r:.200}, "
                        f"is {new.get(key)!r:.200}"
                    )
    return lines


def assert_same_tree(before, after):
    """Fails with the first differences of two digests."""
    lines = tree_differences(before, after)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:40])


def disk_bytes(path):
    """What the tree takes on the disk, as du counts it."""
    seen = {}
    for folder, folders, names in os.walk(os.fsencode(path)):
        for name in [b"", *names, *folders]:
            info = os.lstat(os.path.join(folder, name) if name else folder)
            seen[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def sync_tree(path):
    """Writes back what is dirty on the file system that holds `path`."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(descriptor)
