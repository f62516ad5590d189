"""The daemon under test and its client.

    with Hibfs(source, mount, store) as hibfs:
        (hibfs.mount / "bucket" / "shard").mkdir(parents=True)
        hibfs.ctl("status")

The programs are those of $HIBFS_BUILD (default build/test, which has fault
points). A leftover of any kind, process or mount, is removed at the end.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from .process import Process

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("HIBFS_BUILD") or ROOT / "build/test").resolve()

_SECONDS = 30


def _command(program):
    """How a program of the build is started."""
    path = BUILD / program
    assert path.exists(), f"{path} is not there; make FLAVOR=test builds it"
    # gcc 12's sanitizers fail under the address randomisation of new kernels.
    sanitized = BUILD.name in ("asan", "tsan")
    return (["setarch", "-R"] if sanitized else []) + [str(path)]


def _environment(extra):
    """The tests' environment without what would change what is tested."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "HIBFS_"))
    }
    return {**kept, **{name: str(value) for name, value in extra.items()}}


def mounts_at(path):
    """[(device, type)] of the mounts on exactly `path`, the topmost last."""
    found = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, rest = line.partition(b" - ")
            fields = fields.split()
            # The kernel writes blanks and the like as \ooo.
            place = fields[4].decode("unicode_escape").encode("latin-1")
            if place == os.fsencode(path):
                found.append((fields[2].decode(), rest.split()[0].decode()))
    return found


class CtlError(Exception):
    """hibctl ended with a status other than 0."""

    def __init__(self, done):
        super().__init__(
            f"{' '.join(done.args)}: status {done.returncode}\n"
            f"{done.stdout}{done.stderr}"
        )
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


class Hibfs:
    """One source, one mount point, one store; started and killed at will.

    With `uid` (and the same gid) it runs as that user, who gets the directories.
    """

    def __init__(self, source, mount, store=None, options=(), env=None, uid=None):
        self.source = Path(source)
        self.mount = Path(mount).resolve()
        self.store = store
        # Changes take effect at the next start().
        self.options = list(options)
        self.env = dict(env or {})
        # A Unix socket's path is at most 107 bytes: pytest's are too long.
        self._run = Path(tempfile.mkdtemp(prefix="hibfs-run."))
        self.socket = self._run / "sock"
        self.log = self._run / "log"
        self.process = None
        self.mount.mkdir(parents=True, exist_ok=True)
        # Other users' hibctl must reach the socket, and be refused there.
        self._run.chmod(0o755)
        self.uid = uid
        self._device_mode = None
        if uid is not None:
            # What udev gives everywhere; a bare container may have it narrower.
            self._device_mode = os.stat("/dev/fuse").st_mode & 0o777
            os.chmod("/dev/fuse", 0o666)
            for folder in (self.source, self.mount, self._run):
                os.chown(folder, uid, uid)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        self.close()

    def command(self):
        """The whole command line of the daemon, in the foreground."""
        options = [f"socket={self.socket}"]
        if self.store is not None:
            options += [f"store={self.store.url}", *self.store.options]
        options += self.options
        ids = (f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups")
        return [
            *([] if self.uid is None else ["setpriv", *ids]),
            *_command("hibfs"),
            *("-f", "-o", ",".join(map(str, options))),
            *(str(self.source), str(self.mount)),
        ]

    def spawn(self, faults=None):
        """Starts the daemon and does not wait; faults as in base/fault.h."""
        assert self.process is None or self.process.status is not None
        env = _environment({**(self.store.env if self.store else {}), **self.env})
        if faults:
            env["HIBFS_FAULTS"] = faults
        self.process = Process(self.command(), self.log, env=env)
        return self

    def start(self, faults=None, seconds=_SECONDS):
        """Starts the daemon and waits until mount and socket answer."""
        self.spawn(faults)
        self.process.wait_for(self._answers, "the mount answers", seconds)
        return self

    def _answers(self):
        mounts = mounts_at(self.mount)
        if not mounts or not mounts[-1][1].startswith("fuse"):
            return False
        try:
            os.statvfs(self.mount)
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(str(self.socket))
        except OSError:
            return False
        return True

    def _ctl_command(self, args, as_json):
        command = [*_command("hibctl"), "--socket", str(self.socket)]
        return [*command, *(["--json"] if as_json else []), *map(str, args)]

    def spawn_ctl(self, *args, as_json=False):
        """A hibctl that runs on, as a Popen with pipes for all of its three.

        For verbs that hold something until their input ends. As a context
        manager: its end closes the pipes and waits.
        """
        return subprocess.Popen(
            self._ctl_command(args, as_json),
            env=_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ctl(self, *args, as_json=True, check=True, seconds=_SECONDS, env=None):
        """Runs hibctl, as in ctl("pause", "bucket/shard").

        With as_json what it prints, parsed (a list if it prints several lines
        of JSON), else its text; a failure is a CtlError. With check=False: the
        CompletedProcess.
        """
        done = subprocess.run(
            self._ctl_command(args, as_json),
            env=_environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=seconds,
            text=True,
            check=False,
        )
        if not check:
            return done
        if done.returncode != 0:
            raise CtlError(done)
        if not as_json:
            return done.stdout
        try:
            return json.loads(done.stdout) if done.stdout.strip() else None
        except json.JSONDecodeError:
            return [json.loads(line) for line in done.stdout.splitlines()]

    def call(self, method, params=None, seconds=_SECONDS):
        """One JSON-RPC call on a connection of its own: the whole answer."""
        with self.connect(seconds) as connection:
            request = {"jsonrpc": "2.0", "id": 1, "method": method}
            if params is not None:
                request["params"] = params
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "id" in answer:
                        return answer
        raise AssertionError(f"{method}: the connection ended without an answer")

    def connect(self, seconds=_SECONDS):
        """A connection to the control socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        connection.connect(str(self.socket))
        return connection

    def log_text(self):
        """All that the daemon printed since the first start."""
        return self.log.read_text(errors="backslashreplace") if self.process else ""

    def stop(self, seconds=_SECONDS):
        """Ends it with SIGTERM; it must unmount and end with status 0."""
        self.process.signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        assert status == 0, f"hibfs ended with {status}:\n{self.process.tail()}"
        assert not mounts_at(self.mount), "hibfs left its mount"

    def kill9(self):
        """Ends it as a crash would; the dead mount stays."""
        self.process.kill()

    def wait_killed(self, seconds=_SECONDS):
        """Waits until a fault point has killed it."""
        status = self.process.wait(seconds)
        assert status == -signal.SIGKILL, (
            f"hibfs was not killed but ended with {status}:\n{self.process.tail()}"
        )

    def restart(self, faults=None):
        """stop(), if it runs, and start()."""
        if self.process is not None and self.process.status is None:
            self.stop()
        return self.start(faults)

    def close(self):
        """Ends and removes everything, in whatever state it is."""
        if self.process is not None and self.process.status is None:
            self.process.signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except AssertionError:
                pass
        if self.process is not None:
            self.process.kill()
        # Requests that hang would keep their processes: abort, then detach.
        for device, kind in mounts_at(self.mount):
            if kind.startswith("fuse"):
                number = device.partition(":")[2]
                abort = Path(f"/sys/fs/fuse/connections/{number}/abort")
                if abort.exists():
                    abort.write_text("1")
            subprocess.run(["umount", "-l", str(self.mount)], check=False)
        if self._device_mode is not None:
            os.chmod("/dev/fuse", self._device_mode)
        shutil.rmtree(self._run, ignore_errors=True)
