"""A server process of the tests: it never outlives them."""

import ctypes
import os
import signal
import subprocess

from .waiting import wait_until

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    # Ends the server even if pytest itself is killed.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """Runs `args` in a session of its own; what it prints goes to `log`."""

    def __init__(self, args, log, env=None, cwd=None):
        self.name = os.path.basename(str(args[0]))
        self.log = log
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._popen.pid

    @property
    def status(self):
        """None while it runs, else its exit status (negative: the signal)."""
        return self._popen.poll()

    def tail(self, lines=20):
        """The last lines it printed."""
        with open(self.log, "rb") as log:
            return b"\n".join(log.read().splitlines()[-lines:]).decode(
                errors="backslashreplace"
            )

    def wait_for(self, condition, what, seconds=10.0):
        """Waits until condition() is true; fails at once if the process ends."""

        def ready():
            return self.status is not None or condition()

        try:
            wait_until(ready, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        if self.status is not None:
            raise AssertionError(
                f"{self.name} ended with {self.status}, not: {what}\n{self.tail()}"
            )

    def signal(self, number):
        """Sends a signal if it still runs."""
        if self.status is None:
            self._popen.send_signal(number)

    def wait(self, seconds=10.0):
        """Its exit status; fails if it does not end in time."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not end within {seconds} s:\n{self.tail()}"
            ) from None

    def kill(self):
        """Ends it with all its children, whatever it does."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()
