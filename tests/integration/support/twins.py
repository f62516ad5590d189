"""The same operations on two trees, and whether they do the same.

One tree lies below a mount of hibfs, its twin directly on the file system that
the source lies on. Each operation is done on both; results and errnos must be
equal. All is decided by the seed.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_FLAGS = (0, 0, 0, 1, 2)  # NOREPLACE, EXCHANGE
_ACCESS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
_EXTRA = (0, 0, 0, os.O_APPEND, os.O_SYNC, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_DIRECTORY)
# FUSE has no COLLAPSE_RANGE and INSERT_RANGE.
_FALLOCATE = (0, 1, 3, 0x10, 0x11)
_LIMIT = 300_000


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old, new, flags):
    """rename(2) with flags."""
    _check(_libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))


def fallocate(descriptor, mode, offset, length):
    """fallocate(2) with a mode."""
    offset, length = ctypes.c_int64(offset), ctypes.c_int64(length)
    _check(_libc.fallocate(descriptor, mode, offset, length))


def describe(info):
    """What of a stat result has to be equal in twins."""
    is_directory = stat.S_ISDIR(info.st_mode)
    return (
        oct(info.st_mode),
        info.st_nlink,
        info.st_uid,
        info.st_gid,
        None if is_directory else info.st_size,
        info.st_rdev,
    )


class _User:
    """Acts as another user for the time of a with block."""

    def __init__(self, uid):
        self._uid = uid

    def __enter__(self):
        if self._uid:
            os.setgroups([2001])
            os.setegid(self._uid)
            os.seteuid(self._uid)

    def __exit__(self, *exception):
        if self._uid:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups([])


class Twins:
    """Two roots; names are relative to both."""

    def __init__(self, seed, one, two, users=(0,)):
        self.random = random.Random(seed)
        self.roots = (str(one), str(two))
        self.users = users
        # Names that some operation was given, and those that exist.
        self.names = [""]
        self.existing = [""]
        self._steps = 0
        self.open = []  # pairs of descriptors
        self.done = {}  # operation -> [succeeded, failed]

    # --- choosing ---

    def _refresh(self):
        """Learns which names exist."""
        top = self.roots[1]
        self.existing = [""]
        for folder, folders, files in os.walk(top):
            for name in sorted(folders + files):
                path = os.path.join(folder, name)
                self.existing.append(os.path.relpath(path, top))
        # The order of os.walk() is the file system's.
        self.existing.sort()

    def _name(self):
        exists = self.random.random() < 0.85
        return self.random.choice(self.existing if exists else self.names)

    def _new_name(self):
        parent = self._name()
        if self.random.random() < 0.5:
            parent = os.path.dirname(parent)
        name = os.path.join(parent, f"n{self.random.randrange(12)}")
        if name.count("/") > 4:
            return self._name() or "n0"
        if name not in self.names:
            self.names.append(name)
        return name

    def _offset(self):
        return self.random.choice((0, 1, 4095, 4096, self.random.randrange(_LIMIT)))

    def _mode(self):
        plain = (0o644, 0o600, 0o666, 0o777, 0o755, 0o444, 0o1711, 0o0)
        # On the mount root's writes clear set-id bits as anybody's do.
        set_id = () if 0 in self.users else (0o4755, 0o2755, 0o2711)
        return self.random.choice(plain + set_id)

    # --- doing ---

    def both(self, what, function):
        """function(0) and function(1), which must come to the same."""
        outcomes = []
        for side in (0, 1):
            try:
                outcomes.append(("ok", function(side)))
            except OSError as error:
                outcomes.append(("errno", errno.errorcode.get(error.errno)))
        assert outcomes[0] == outcomes[1], f"{what}: {outcomes[0]} != {outcomes[1]}"
        counts = self.done.setdefault(what.split()[0], [0, 0])
        counts[0 if outcomes[0][0] == "ok" else 1] += 1
        return outcomes[0][0] == "ok"

    def paths(self, name):
        """The name in both trees."""
        return [os.path.join(root, name) for root in self.roots]

    def step(self):
        """One operation."""
        if self._steps % 20 == 0:
            self._refresh()
        self._steps += 1
        operations = self.OPERATIONS
        operation = self.random.choices(
            [o for o, _ in operations], [w for _, w in operations]
        )[0]
        with _User(self.random.choice(self.users)):
            operation(self)

    def close(self):
        """Closes what is open."""
        for pair in self.open:
            for descriptor in pair:
                os.close(descriptor)
        self.open.clear()

    # --- operations ---

    def _open(self, name, flags, mode=0o666):
        pair = [-1, -1]

        def do(side):
            pair[side] = os.open(self.paths(name)[side], flags, mode)
            return oct(fcntl.fcntl(pair[side], fcntl.F_GETFL))

        if self.both(f"open {name} {flags:o} {mode:o}", do):
            self.open.append(pair)
            if len(self.open) > 40:
                self.op_close()

    def op_create(self):
        flags = self.random.choice(_ACCESS) | os.O_CREAT
        flags |= self.random.choice((0, 0, os.O_EXCL, os.O_TRUNC))
        flags |= os.O_NONBLOCK | self.random.choice((0, 0, os.O_APPEND))
        self._open(self._new_name(), flags, self._mode())

    def op_open(self):
        flags = self.random.choice(_ACCESS) | self.random.choice(_EXTRA)
        flags |= self.random.choice((0, 0, os.O_TRUNC))
        # A fifo without O_NONBLOCK waits for its other end.
        self._open(self._name(), flags | os.O_NONBLOCK)

    def op_tmpfile(self):
        self._open(self._name(), os.O_RDWR | os.O_TMPFILE, self._mode())

    def op_close(self):
        if self.open:
            pair = self.open.pop(self.random.randrange(len(self.open)))
            self.both("close", lambda side: os.close(pair[side]))

    def _opened(self):
        return self.random.choice(self.open) if self.open else None

    def op_write(self):
        pair = self._opened()
        if pair:
            data = self.random.randbytes(self.random.choice((1, 100, 4096, 70_000)))
            self.both("write", lambda side: os.write(pair[side], data))

    def op_pwrite(self):
        pair, at = self._opened(), self._offset()
        if pair:
            data = self.random.randbytes(self.random.choice((1, 100, 4096, 20_000)))
            self.both("pwrite", lambda side: os.pwrite(pair[side], data, at))

    def op_read(self):
        pair, size = self._opened(), self.random.choice((1, 5000, 200_000))
        if pair:
            self.both("read", lambda side: os.read(pair[side], size))

    def op_pread(self):
        pair, at = self._opened(), self._offset()
        size = self.random.choice((1, 5000, 200_000))
        if pair:
            self.both("pread", lambda side: os.pread(pair[side], size, at))

    def op_lseek(self):
        pair, at = self._opened(), self._offset()
        whence = self.random.choice((os.SEEK_SET, os.SEEK_END, os.SEEK_CUR))
        if pair and not self._is_directory(pair):
            self.both("lseek", lambda side: os.lseek(pair[side], at, whence))

    @staticmethod
    def _is_directory(pair):
        return stat.S_ISDIR(os.fstat(pair[1]).st_mode)

    def op_ftruncate(self):
        pair, size = self._opened(), self._offset()
        if pair:
            self.both("ftruncate", lambda side: os.ftruncate(pair[side], size))

    def op_truncate(self):
        name, size = self._name(), self._offset()
        self.both(
            f"truncate {name}", lambda side: os.truncate(self.paths(name)[side], size)
        )

    def op_fallocate(self):
        pair, mode = self._opened(), self.random.choice(_FALLOCATE)
        at, length = self._offset(), self.random.choice((0, 1, 4096, 50_000))
        if pair:
            self.both(
                f"fallocate {mode:x} {at} {length}",
                lambda side: fallocate(pair[side], mode, at, length),
            )

    def op_fsync(self):
        pair = self._opened()
        function = self.random.choice((os.fsync, os.fdatasync))
        if pair:
            self.both("fsync", lambda side: function(pair[side]))

    def op_fstat(self):
        pair = self._opened()
        if pair:
            self.both("fstat", lambda side: describe(os.fstat(pair[side])))

    def op_fchmod(self):
        pair, mode = self._opened(), self._mode()
        if pair:
            self.both("fchmod", lambda side: os.fchmod(pair[side], mode))

    def op_copy(self):
        source, target = self._opened(), self._opened()
        at, to = self._offset(), self._offset()
        length = self.random.choice((1, 4096, 100_000))
        if source:
            self.both(
                "copy_file_range",
                lambda side: os.copy_file_range(
                    source[side], target[side], length, at, to
                ),
            )

    def op_mmap(self):
        pair = self._opened()
        writable = self.random.random() < 0.5
        data = self.random.randbytes(50)
        place = self.random.random()
        if not pair or self._is_directory(pair):
            return

        def do(side):
            size = os.fstat(pair[side]).st_size
            if not size:
                return None
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            with mmap.mmap(pair[side], size, access=access) as mapping:
                at = int(place * size)
                if writable:
                    part = data[: size - at]
                    mapping[at : at + len(part)] = part
                return mapping[max(0, at - 100) : at + 100]

        self.both("mmap", do)

    def op_flock(self):
        pair = self._opened()
        how = self.random.choice((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))
        if pair:
            self.both("flock", lambda side: fcntl.flock(pair[side], how | fcntl.LOCK_NB))

    def op_mkdir(self):
        name, mode = self._new_name(), self.random.choice((0o755, 0o777, 0o2777))
        self.both(f"mkdir {name}", lambda side: os.mkdir(self.paths(name)[side], mode))

    def op_rmdir(self):
        name = self._name()
        if name:
            self.both(f"rmdir {name}", lambda side: os.rmdir(self.paths(name)[side]))

    def op_unlink(self):
        name = self._name()
        self.both(f"unlink {name}", lambda side: os.unlink(self.paths(name)[side]))

    def op_rename(self):
        old, new = self._name(), self._new_name()
        flags = self.random.choice(_RENAME_FLAGS)
        if old and new:
            self.both(
                f"rename {old} {new} {flags}",
                lambda side: renameat2(
                    self.paths(old)[side], self.paths(new)[side], flags
                ),
            )

    def op_link(self):
        old, new = self._name(), self._new_name()
        self.both(
            f"link {old} {new}",
            lambda side: os.link(
                self.paths(old)[side], self.paths(new)[side], follow_symlinks=False
            ),
        )

    def op_symlink(self):
        # Not "..", which leaves the tree.
        target = self.random.choice((os.path.basename(self._name()) or ".", "gone"))
        name = self._new_name()
        self.both(
            f"symlink {name}", lambda side: os.symlink(target, self.paths(name)[side])
        )

    def op_readlink(self):
        name = self._name()
        self.both(f"readlink {name}", lambda side: os.readlink(self.paths(name)[side]))

    def op_mknod(self):
        name, mode = self._new_name(), self._mode()
        kind = self.random.choice((stat.S_IFIFO, stat.S_IFREG, stat.S_IFCHR, stat.S_IFSOCK))
        device = os.makedev(1, 3) if kind == stat.S_IFCHR else 0
        self.both(
            f"mknod {name}",
            lambda side: os.mknod(self.paths(name)[side], kind | mode, device),
        )

    def op_chmod(self):
        name, mode = self._name(), self._mode()
        if os.path.isdir(self.paths(name)[1]) and self.random.random() < 0.9:
            # Most directories stay usable.
            mode = self.random.choice((0o777, 0o755, 0o1777, 0o2777))
        if name:
            self.both(
                f"chmod {name} {mode:o}",
                lambda side: os.chmod(self.paths(name)[side], mode),
            )

    def op_chown(self):
        name = self._name()
        uid = self.random.choice((-1, 0, 1001, 1002))
        gid = self.random.choice((-1, 0, 1001, 2001))
        # With neither the kernel asks nobody on a mount with KILLPRIV_V2.
        if name and (uid, gid) != (-1, -1):
            self.both(
                f"chown {name} {uid} {gid}",
                lambda side: os.chown(
                    self.paths(name)[side], uid, gid, follow_symlinks=False
                ),
            )

    def op_utime(self):
        name, times = self._name(), (self.random.randrange(10**18), 12345)

        def do(side):
            path = self.paths(name)[side]
            os.utime(path, ns=times, follow_symlinks=False)
            # Following a symlink, as in n1/n1, may set its atime meanwhile.
            return os.lstat(path).st_mtime_ns

        self.both(f"utime {name}", do)

    def op_setxattr(self):
        name = self._name()
        key = self.random.choice(("user.a", "user.b", "trusted.c", "security.d"))
        value = self.random.randbytes(self.random.choice((0, 10, 500)))
        flags = self.random.choice((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        self.both(
            f"setxattr {name} {key}",
            lambda side: os.setxattr(
                self.paths(name)[side], key, value, flags, follow_symlinks=False
            ),
        )

    def op_getxattr(self):
        name, key = self._name(), self.random.choice(("user.a", "user.b", "trusted.c"))
        self.both(
            f"getxattr {name} {key}",
            lambda side: os.getxattr(
                self.paths(name)[side], key, follow_symlinks=False
            ),
        )

    def op_listxattr(self):
        name = self._name()
        self.both(
            f"listxattr {name}",
            lambda side: sorted(
                os.listxattr(self.paths(name)[side], follow_symlinks=False)
            ),
        )

    def op_removexattr(self):
        name, key = self._name(), self.random.choice(("user.a", "user.b", "trusted.c"))
        self.both(
            f"removexattr {name} {key}",
            lambda side: os.removexattr(
                self.paths(name)[side], key, follow_symlinks=False
            ),
        )

    def op_stat(self):
        name, follow = self._name(), self.random.random() < 0.3
        self.both(
            f"stat {name}",
            lambda side: describe(
                os.stat(self.paths(name)[side], follow_symlinks=follow)
            ),
        )

    def op_access(self):
        name, mode = self._name(), self.random.randrange(8)
        self.both(
            f"access {name}",
            lambda side: os.access(self.paths(name)[side], mode, effective_ids=True),
        )

    def op_listdir(self):
        name = self._name()

        def do(side):
            with os.scandir(self.paths(name)[side]) as entries:
                return sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)

        self.both(f"listdir {name}", do)

    def op_umask(self):
        os.umask(self.random.choice((0o022, 0, 0, 0o027)))

    OPERATIONS = (
        (op_create, 8),
        (op_open, 8),
        (op_tmpfile, 1),
        (op_close, 6),
        (op_write, 6),
        (op_pwrite, 6),
        (op_read, 4),
        (op_pread, 4),
        (op_lseek, 3),
        (op_ftruncate, 3),
        (op_truncate, 3),
        (op_fallocate, 3),
        (op_fsync, 1),
        (op_fstat, 4),
        (op_fchmod, 1),
        (op_copy, 3),
        (op_mmap, 4),
        (op_flock, 1),
        (op_mkdir, 5),
        (op_rmdir, 1),
        (op_unlink, 3),
        (op_rename, 6),
        (op_link, 4),
        (op_symlink, 3),
        (op_readlink, 2),
        (op_mknod, 2),
        (op_chmod, 4),
        (op_chown, 3),
        (op_utime, 2),
        (op_setxattr, 4),
        (op_getxattr, 2),
        (op_listxattr, 2),
        (op_removexattr, 2),
        (op_stat, 6),
        (op_access, 2),
        (op_listdir, 4),
        (op_umask, 1),
    )


def same_as_source(mount, source):
    """Names and attributes below a mount that are not those of the source."""
    wrong = []
    for folder, folders, files in os.walk(mount):
        relative = os.path.relpath(folder, mount)
        below = os.path.join(source, relative)
        if sorted(os.listdir(below)) != sorted(folders + files):
            wrong.append(f"{relative}: other names")
        for name in [*folders, *files]:
            shown = os.lstat(os.path.join(folder, name))
            real = os.lstat(os.path.join(below, name))
            for key in ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "rdev"):
                if getattr(shown, "st_" + key) != getattr(real, "st_" + key):
                    wrong.append(f"{relative}/{name}: {key}")
    return wrong
