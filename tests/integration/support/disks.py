"""File systems of their own, on loop devices."""

import subprocess

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-K", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-K"),
}
# What a hibfs source can lie on, in the words of stat(1).
SUPPORTED = ("ext2/ext3", "xfs", "btrfs")


def kind_of(path):
    """The file system that holds `path`; findmnt knows none in a chroot."""
    return subprocess.run(
        ["stat", "--file-system", "--format=%T", str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()


class LoopDisk:
    """A mounted, sparse image; `path` is its root. XFS wants 300 MiB or more."""

    def __init__(self, directory, kind="ext4", size="1G"):
        directory.mkdir(parents=True)
        self._image = directory / "image"
        self.path = directory / "mnt"
        self.path.mkdir()
        self._run("truncate", "-s", size, self._image)
        self._run(*_MAKE[kind], self._image)
        self._run("mount", "-o", "loop", "-t", kind, self._image, self.path)

    @staticmethod
    def _run(*args):
        done = subprocess.run(
            [str(arg) for arg in args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{args}: {done.stdout}"

    def close(self):
        """Unmounts it, also when something still uses it, and frees its blocks."""
        subprocess.run(["umount", "-l", str(self.path)], check=False)
        self._image.unlink(missing_ok=True)
