"""The control socket against clients that are wrong, hostile or dead, and what
hibctl tells scripts."""

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time

import pytest
from support.waiting import wait_until

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
SERVER_ERROR = -32000

MIB = 1 << 20
NO_TASK = "00000000-0000-4000-8000-000000000000"


def request(method, params=None, number=1):
    """The bytes of a request."""
    message = {"jsonrpc": "2.0", "id": number, "method": method}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode() + b"\n"


def send_what_goes(connection, data):
    """Sends until the other side does not want more."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def read_line(connection):
    """The next line, b"" at the end."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            data = connection.recv(1)
        except ConnectionResetError:
            data = b""
        if not data:
            break
        line += data
    return line


def error_code(line):
    """The error's code in a reply; 0 for a result."""
    return json.loads(line).get("error", {}).get("code", 0)


def is_well(hibfs):
    """Whether it answers, and soon."""
    start = time.monotonic()
    answer = hibfs.call("ping", seconds=10)
    return answer["result"] == {"pong": True} and time.monotonic() - start < 5


def threads_of(hibfs):
    """How many threads the daemon has."""
    return len(os.listdir(f"/proc/{hibfs.process.pid}/task"))


def descriptors_of(hibfs):
    """How many descriptors the daemon has open."""
    return len(os.listdir(f"/proc/{hibfs.process.pid}/fd"))


def memory_of(hibfs):
    """Resident memory of the daemon in bytes."""
    with open(f"/proc/{hibfs.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def shard(mounted):
    """A shard with a file in it: its target."""
    folder = mounted.mount / "db" / "one"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(os.urandom(MIB))
    return "db/one"


# --- who may call -------------------------------------------------------------

_CALL = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
try:
    s.connect(sys.argv[1])
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n')
except BrokenPipeError:
    pass
except PermissionError:
    print("closed to me")
    sys.exit()
print(s.makefile().readline())
"""


def call_as(hibfs, uid, groups=()):
    """What a ping of another user gets."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", _CALL, str(hibfs.socket)],
        user=uid,
        group=groups[0] if groups else uid,
        extra_groups=list(groups[1:]),
        cwd="/",
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
        text=True,
    )
    return done.stdout


@pytest.mark.req("A1")
def test_others_cannot_reach_the_socket(mounted):
    mounted.socket.parent.chmod(0o755)
    assert call_as(mounted, 65534) == "closed to me\n"
    # Even if somebody opens the file: the kernel says who it is.
    mounted.socket.chmod(0o666)
    answer = json.loads(call_as(mounted, 65534))
    assert answer["error"]["code"] == SERVER_ERROR
    assert answer["error"]["data"]["errno"] == "EPERM"
    assert is_well(mounted)


@pytest.mark.req("A1")
def test_the_control_group_may_call(make_hibfs, file_store):
    hibfs = make_hibfs(file_store, options=["control_group=2002"]).start()
    hibfs.socket.parent.chmod(0o755)
    assert "pong" in call_as(hibfs, 65534, [2002])
    assert "pong" in call_as(hibfs, 65534, [65534, 3003, 2002])
    assert call_as(hibfs, 65534, [65534, 3003]) == "closed to me\n"


# --- what is wrong with a message ---------------------------------------------

HOSTILE = {
    "no json": (b"hello\n", PARSE_ERROR),
    "binary": (bytes(range(256)).replace(b"\n", b"") + b"\n", PARSE_ERROR),
    "http": (b"GET / HTTP/1.1\r\n", PARSE_ERROR),
    "not utf-8": (request("ping").replace(b"ping", b"\xff\xfe"), PARSE_ERROR),
    "a nul": (request("list", {"target": "a\0b"}), PARSE_ERROR),
    "cut off": (request("ping")[:-10] + b"\n", PARSE_ERROR),
    "a batch": (b"[" + request("ping")[:-1] + b"]\n", INVALID_REQUEST),
    "no method": (b'{"jsonrpc":"2.0","id":1}\n', INVALID_REQUEST),
    "nested": (b'{"a":' * 100000 + b"\n", INVALID_REQUEST),
    "nested arrays": (b"[" * 900000 + b"\n", INVALID_REQUEST),
    "many values": (b"[" + b"0," * 500000 + b"0]\n", INVALID_REQUEST),
    "strange id": (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}\n', INVALID_REQUEST),
    "too long": (b" " * (MIB + 1) + b"\n", INVALID_REQUEST),
    "too long, no end": (b"x" * (8 * MIB), INVALID_REQUEST),
    "unknown method": (request("rm -rf /"), METHOD_NOT_FOUND),
    "long method": (request("x" * 900000), METHOD_NOT_FOUND),
    "a list": (request("list", ["db"]), INVALID_PARAMS),
    "wrong type": (request("list", {"target": {}}), INVALID_PARAMS),
    "long name": (request("list", {"target": "x" * 900000}), INVALID_PARAMS),
    "control characters": (request("list", {"target": "a\x1b[31m"}), INVALID_PARAMS),
    "unknown parameter": (request("list", {"x" * 10000: 1}), INVALID_PARAMS),
    "negative": (request("events", {"limit": -1}), INVALID_PARAMS),
    "huge number": (request("events", {"limit": 1 << 62}), INVALID_PARAMS),
    "a fraction": (request("events", {"limit": 0.5}), INVALID_PARAMS),
    "no task id": (request("task", {"tasks": ["../../etc/passwd"]}), INVALID_PARAMS),
    "no tasks": (request("task", {"tasks": []}), INVALID_PARAMS),
    "too many tasks": (request("task", {"tasks": [NO_TASK] * 1001}), INVALID_PARAMS),
}


@pytest.mark.req("A1")
def test_hostile_messages_get_an_error_and_harm_nothing(mounted):
    for name, (data, code) in HOSTILE.items():
        with mounted.connect() as connection:
            send_what_goes(connection, data)
            line = read_line(connection)
        assert line, f"{name}: no answer"
        assert error_code(line) == code, f"{name}: {line[:300]}"
        assert len(line) < 4096, name
        assert is_well(mounted), name


@pytest.mark.req("A2")
def test_names_cannot_leave_their_directory(mounted, shard):
    for target in (
        *("..", ".", "../db", "db/..", "db/../..", "/etc", "db//one", "db/one/file"),
        *("%2e%2e", "db/%2e%2e", "db/%2Fetc", "%00", "db/%00", ".hibfs", "%", "db/%zz"),
        *("x" * 256, "db/" + "x" * 256),
    ):
        for method in ("list", "lock", "pause", "resume", "verify"):
            answer = mounted.call(method, {"target": target})
            assert "error" in answer, f"{method} {target}: {answer}"
            assert answer["error"]["data"]["errno"] in ("EINVAL", "ENOENT"), answer
    assert mounted.ctl("list", shard)["shards"][0]["state"] == "live"
    assert mounted.ctl("tasks", "--active")["tasks"] == []


@pytest.mark.req("A1")
def test_a_message_without_its_end_is_not_executed(mounted, shard):
    with mounted.connect() as connection:
        connection.sendall(request("pause", {"target": shard})[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert error_code(read_line(connection)) == PARSE_ERROR
        assert read_line(connection) == b""
    assert mounted.ctl("tasks")["tasks"] == []


# --- many clients, and dead ones ----------------------------------------------


def _misbehave(hibfs, seed, end, failures):
    chance = random.Random(seed)
    while time.monotonic() < end:
        try:
            with hibfs.connect(20) as connection:
                _misbehave_once(connection, chance)
        except (ConnectionResetError, BrokenPipeError):
            pass
        except (OSError, ValueError, AssertionError) as error:
            failures.append(f"{type(error).__name__}: {error}")
            return


def _misbehave_once(connection, chance):
    what = chance.randrange(8)
    if what == 0:  # hang up in the middle of a message
        connection.sendall(request("status")[: chance.randrange(1, 30)])
    elif what == 1:  # ask and hang up
        connection.sendall(request("tasks") * chance.randrange(1, 20))
    elif what == 2:  # subscribe, and be gone
        connection.sendall(request("subscribe", {"after": 0}))
        read_line(connection)
    elif what == 3:  # a reset: the answer is not read
        connection.sendall(request("config"))
        select.select([connection], [], [], 5)
    elif what == 4:
        connection.sendall(os.urandom(chance.randrange(1, 4096)) + b"\n")
    else:  # poll, as a monitor does
        for number in range(20):
            connection.sendall(request("list", number=number))
            line = read_line(connection)
            assert json.loads(line)["id"] == number


@pytest.mark.req("A1")
def test_two_hundred_clients_do_no_harm(mounted, shard):
    assert is_well(mounted)
    threads, descriptors = threads_of(mounted), descriptors_of(mounted)
    failures = []
    end = time.monotonic() + 5
    clients = [
        threading.Thread(target=_misbehave, args=(mounted, seed, end, failures))
        for seed in range(200)
    ]
    for client in clients:
        client.start()
    while time.monotonic() < end:
        assert is_well(mounted)
        time.sleep(0.1)
    for client in clients:
        client.join(30)
    assert not failures, failures[:5]
    wait_until(lambda: threads_of(mounted) <= threads, "the threads have ended")
    wait_until(lambda: descriptors_of(mounted) <= descriptors, "they are closed")
    assert mounted.ctl("list", shard)["shards"][0]["state"] == "live"


@pytest.mark.req("A1")
def test_memory_stays_bounded(mounted):
    before = memory_of(mounted)
    connections = []
    for _ in range(300):
        connection = mounted.connect()
        connections.append(connection)
        send_what_goes(connection, b'{"a":"' + b"x" * 150000)
    assert is_well(mounted)
    grown = memory_of(mounted) - before
    for connection in connections:
        connection.close()
    assert grown < 100 * MIB, f"{grown >> 20} MiB"


@pytest.mark.req("A1")
def test_connections_over_the_limit_are_refused_with_a_message(mounted):
    connections = []
    refused = None
    for _ in range(600):
        connection = mounted.connect()
        connections.append(connection)
        send_what_goes(connection, request("ping"))
        line = read_line(connection)
        if error_code(line):
            refused = json.loads(line)
            break
    assert refused is not None
    assert refused["error"]["data"]["errno"] == "EAGAIN"
    assert len(connections) > 512
    for connection in connections:
        connection.close()
    wait_until(lambda: is_well(mounted), "it answers again")


@pytest.mark.req("A1", "E3")
def test_it_stops_while_clients_wait_and_do_not_read(mounted, shard):
    connections = [mounted.connect() for _ in range(20)]
    for number, connection in enumerate(connections):
        if number % 2:
            connection.sendall(request("subscribe"))
            read_line(connection)
        else:  # answers that nobody takes
            connection.setblocking(False)
            try:
                while True:
                    connection.send(request("config") * 100)
            except BlockingIOError:
                pass
    start = time.monotonic()
    mounted.stop()
    assert time.monotonic() - start < 10
    for connection in connections:
        connection.close()


@pytest.mark.req("F3")
def test_a_socket_that_a_crash_left_is_replaced(mounted):
    mounted.kill9()
    assert mounted.socket.exists()
    mounted.start()
    assert is_well(mounted)
    mounted.stop()
    assert not mounted.socket.exists()


# --- hibctl -------------------------------------------------------------------


def locks(hibfs, shard):
    """The lock of a shard, or None."""
    return hibfs.ctl("list", shard)["shards"][0]["lock"]


@contextlib.contextmanager
def popen_ctl(hibfs, *args):
    """hibctl in the background; killed at the end if it still runs."""
    command = hibfs.ctl("version", as_json=False, check=False).args[:-1]
    with subprocess.Popen(
        [*command, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            yield client
        finally:
            client.kill()


@pytest.mark.req("L5")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_lock_goes_with_its_client(mounted, shard, number):
    with popen_ctl(mounted, "lock", shard) as client:
        wait_until(lambda: locks(mounted, shard), "it is locked")
        client.send_signal(number)
        client.wait(10)
        wait_until(lambda: not locks(mounted, shard), "it is unlocked")


@pytest.mark.req("L5")
def test_a_lock_ends_with_standard_input(mounted, shard):
    with popen_ctl(mounted, "lock", shard) as client:
        wait_until(lambda: locks(mounted, shard), "it is locked")
        client.stdin.write("words are no end\n")
        client.stdin.flush()
        time.sleep(0.1)
        assert locks(mounted, shard)
        client.stdin.close()
        assert client.wait(10) == 0
        assert not locks(mounted, shard)


@pytest.mark.req("L5")
def test_a_command_runs_under_the_lock_and_gives_its_status(mounted, shard):
    assert locks(mounted, shard) is None
    done = mounted.ctl(
        *("lock", shard, "--", "sh", "-c", "echo under; exit 42"),
        as_json=False,
        check=False,
    )
    assert (done.returncode, done.stdout) == (42, "under\n")
    assert locks(mounted, shard) is None
    done = mounted.ctl("lock", shard, "--", "/does/not/exist", check=False)
    assert done.returncode == 127
    assert locks(mounted, shard) is None


@pytest.mark.req("L6")
def test_a_lock_with_a_ttl_outlives_its_client(mounted, shard):
    mounted.ctl("lock", shard, "--ttl", "1h", "--owner", "me")
    assert locks(mounted, shard)["owner"] == "me"
    done = mounted.ctl("unlock", shard, "--owner", "you", check=False)
    assert done.returncode == 6
    assert "me" in done.stderr
    done = mounted.ctl("lock", shard, "--", "true", check=False)
    assert done.returncode == 4
    mounted.ctl("unlock", shard, "--owner", "me")
    assert locks(mounted, shard) is None
    assert mounted.ctl("unlock", shard, "--owner", "me")["released"] is False


STATUSES = {
    ("list",): 0,
    ("help",): 0,
    ("help", "pause"): 0,
    ("--version",): 0,
    ("lits",): 2,
    ("--frobnicate",): 2,
    ("pause",): 2,
    ("pause", "a", "b"): 2,
    ("pause", "db", "--frobnicate"): 2,
    ("lock", "db/one", "--ttl", "30"): 2,
    ("lock", "db/one", "--"): 2,
    ("task", "x"): 2,
    ("list", "nothing"): 5,
    ("pause", "db/nothing"): 5,
    ("task", NO_TASK): 5,
    ("wait", NO_TASK): 5,
    ("cancel", NO_TASK): 5,
}


def test_exit_codes_and_streams_are_for_scripts(mounted, shard):
    for words, status in STATUSES.items():
        done = mounted.ctl(*words, as_json=False, check=False)
        assert done.returncode == status, f"{words}: {done}"
        if status:
            assert done.stdout == "", words
            assert done.stderr.startswith("hibctl: "), words
    assert '"list"' in mounted.ctl("lits", check=False).stderr
    assert shard in mounted.ctl("list", as_json=False)


@pytest.mark.req("E1", "E2")
def test_pause_and_resume_wait_and_tell(mounted, shard):
    task = mounted.ctl("pause", shard)
    assert (task["kind"], task["status"]) == ("pause", "completed")
    done = mounted.ctl("pause", shard, as_json=False, check=False)
    assert done.returncode == 1
    identity = mounted.ctl("resume", shard, "--no-wait", as_json=False).strip()
    text = mounted.ctl("wait", identity, as_json=False)
    assert text.startswith(f"resume of {shard}: completed")
    tasks = mounted.ctl("task", task["id"], identity)["tasks"]
    assert [task["status"] for task in tasks] == ["completed", "completed"]


@pytest.mark.req("E1")
def test_events_can_be_followed(mounted, shard):
    with popen_ctl(mounted, "--json", "events", "--follow") as client:
        task = mounted.ctl("pause", shard)
        wanted = ["started", "completed"]
        while wanted:
            event = json.loads(client.stdout.readline())
            if event["extra_attributes"].get("task_id") == task["id"]:
                assert event["description"].endswith(wanted.pop(0))
        client.send_signal(signal.SIGINT)
        assert client.wait(10) == 0


def test_without_a_daemon_the_status_is_3(mounted):
    mounted.stop()
    done = mounted.ctl("list", check=False)
    assert done.returncode == 3
    assert str(mounted.socket) in done.stderr
