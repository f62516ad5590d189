"""The object store against real servers: transfer/store.h through store_tool."""

import os
import subprocess
import threading
import time

import pytest
from support.hibfs import BUILD
from support.waiting import free_port, wait_until

TOOL = BUILD / "tests/integration/tools/store_tool"
MIB = 1 << 20


class Result:
    """How a run of store_tool ended; `error` is the name of an errno or ''."""

    def __init__(self, done):
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr.decode()
        lines = [line for line in self.err.splitlines() if line[:6] != "stats "]
        self.error, _, self.message = (lines or [""])[-1].partition(" ")
        self.stats = {}
        for line in self.err.splitlines():
            if line.startswith("stats "):
                pairs = (word.split("=") for word in line.split()[1:])
                self.stats = {name: int(value) for name, value in pairs}


class Tool:
    """store_tool with the options that reach one store."""

    def __init__(self, url, env, tmp_path, **options):
        self.env = env
        self.options = {"url": url, "stats": 1, **options}
        self.folder = tmp_path
        self.seen = []

    def _start(self, args, options):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        words = [f"{k}={v}" for k, v in {**self.options, **options}.items()]
        command = ["setarch", "-R"] if BUILD.name in ("asan", "tsan") else []
        return subprocess.Popen(
            [*command, str(TOOL), *words, *map(str, args)],
            env={**kept, "HOME": str(self.folder), **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *args, **options):
        """Runs one command to its end."""
        return self.background(*args, **options)()

    def background(self, *args, **options):
        """Starts one command; call what it gives for the Result."""
        process = self._start(args, options)

        def end():
            out, err = process.communicate(timeout=100)
            done = subprocess.CompletedProcess(args, process.returncode, out, err)
            self.seen.append(out + err)
            return Result(done)

        return end

    def ok(self, *args, **options):
        """Runs one command that must succeed: its Result."""
        result = self.run(*args, **options)
        assert result.status == 0, result.err
        return result

    def fails(self, error, *args, **options):
        """Runs one command that must fail with that errno: its Result."""
        result = self.run(*args, **options)
        assert result.error == error, result.err
        return result

    def put(self, key, data, command="put", **options):
        """Puts bytes that must arrive."""
        return self.ok(command, key, self.file(data), **options)

    def file(self, data):
        """A file with that content."""
        path = self.folder / f"body{len(list(self.folder.iterdir()))}"
        path.write_bytes(data)
        return path

    def keys(self, prefix="", after=None):
        """The listing's keys."""
        out = self.ok("list", prefix, *([after] if after else [])).out.decode()
        return [line.split(" ", 1)[1] for line in out.splitlines()]


@pytest.fixture
def file_tool(file_store, tmp_path):
    return Tool(file_store.url, {}, tmp_path)


@pytest.fixture
def s3_tool(rgw, tmp_path):
    """A store with a prefix in a fresh bucket; `bucket` is the other client's."""
    bucket = rgw.fresh_bucket()
    tool = Tool(
        f"s3://{bucket.name}/a/prefix", rgw.env, tmp_path, endpoint=rgw.endpoint
    )
    tool.bucket = bucket
    return tool


@pytest.fixture
def faulty(s3_tool, s3proxy):
    """The same through the proxy that injects faults."""
    s3_tool.options["endpoint"] = s3proxy.endpoint
    s3_tool.proxy = s3proxy
    return s3_tool


@pytest.fixture(params=["file", "s3"])
def tool(request):
    """Runs the test twice: with a store of each kind."""
    return request.getfixturevalue(f"{request.param}_tool")


# --- what holds for each kind -------------------------------------------------


def test_objects_go_and_come_back(tool):
    data = os.urandom(3 * MIB + 17)
    tool.put("d/k", data)
    assert tool.ok("get", "d/k").out == data
    assert tool.ok("get", "d/k", MIB, 100).out == data[MIB : MIB + 100]
    assert tool.ok("get", "d/k", 3 * MIB, 0).out == data[3 * MIB :]
    assert tool.ok("head", "d/k").out.split()[0] == str(len(data)).encode()
    tool.put("d/k", b"")
    assert tool.ok("get", "d/k").out == b""
    size, modified = tool.ok("head", "d/k").out.split()
    assert int(size) == 0
    assert abs(int(modified) / 1000 - time.time()) < 100


def test_odd_keys_are_kept(tool):
    keys = sorted(["a b", "a+b", "a%20b", "a&b<c>'d\"", "a/b/~c", "a=b?c#d", "%"])
    for key in keys:
        tool.put(key, key.encode())
    assert tool.keys() == keys
    for key in keys:
        assert tool.ok("get", key).out == key.encode()
    tool.ok("delete", *keys)
    assert tool.keys() == []


def test_what_is_not_there_is_enoent(tool):
    for command in ("get", "head"):
        tool.fails("ENOENT", command, "nothing")
    tool.ok("delete", "nothing")


@pytest.mark.req("T9")
def test_more_than_there_is_is_an_error(tool):
    tool.put("k", b"0123456789")
    tool.fails("EIO", "get", "k", 5, 6)
    tool.fails("EIO", "get", "k", 10, 1)
    tool.fails("EIO", "get", "k", 10, 0)
    assert tool.ok("get", "k", 5, 5).out == b"56789"


@pytest.mark.req("P14")
def test_one_of_many_creates_an_object(tool):
    assert tool.ok("race", "lock", 12).out == b"1 11\n"
    tool.fails("EEXIST", "put-if-absent", "lock", tool.file(b"x"))
    assert tool.ok("get", "lock").out.startswith(b"racer ")


@pytest.mark.req("A2")
def test_keys_cannot_leave_the_store(tool):
    for key in ("../x", "a/../x", "/x", "a//x", "./x", ""):
        tool.fails("EINVAL", "put", key, tool.file(b"x"))


def test_listings_go_over_many_pages(s3_tool):
    for number in range(1010):
        s3_tool.bucket.put(f"a/prefix/n/{number:04}", b"")
    s3_tool.bucket.put("a/prefix2", b"")
    names = [f"n/{number:04}" for number in range(1010)]
    assert s3_tool.keys() == names
    assert s3_tool.keys("n/10") == names[1000:]
    assert s3_tool.keys("", "n/1004") == names[1005:]
    s3_tool.ok("delete", *names)
    assert s3_tool.bucket.keys() == ["a/prefix2"]


@pytest.mark.req("T6")
def test_objects_lie_below_the_prefix(s3_tool):
    s3_tool.put("k/1", b"x")
    assert s3_tool.bucket.keys() == ["a/prefix/k/1"]


def test_big_objects_go_up_in_parts(s3_tool):
    data = os.urandom(MIB) * 130 + b"end"
    s3_tool.put("big", data)
    assert s3_tool.ok("get", "big").out == data
    assert s3_tool.bucket.head("a/prefix/big")["etag"].endswith('-3"')
    assert s3_tool.bucket.uploads() == []


def test_a_bucket_that_is_not_there_is_named_so(rgw, tmp_path):
    tool = Tool("s3://no-such-bucket", rgw.env, tmp_path, endpoint=rgw.endpoint)
    for command in (("get", "k"), ("head", "k"), ("list", ""), ("delete", "k")):
        tool.fails("ENXIO", *command)


def test_a_bucket_in_the_host_name(s3_tool, rgw):
    s3_tool.options["endpoint"] = f"http://localhost:{rgw.port}"
    s3_tool.put("k", b"x")
    assert s3_tool.bucket.keys() == ["a/prefix/k"]


# --- faults -------------------------------------------------------------------


@pytest.mark.req("T13")
@pytest.mark.parametrize(
    "action, rule",
    [
        ("error", {}),
        ("error", {"status": 500, "code": "InternalError"}),
        ("error", {"status": 429, "code": "TooManyRequests"}),
        ("error", {"status": 200, "code": "InternalError"}),
        ("close", {}),
        ("late-error", {}),
        ("late-error", {"status": 200, "code": "InternalError"}),
    ],
)
def test_faults_that_pass_are_outlived(faulty, action, rule):
    data = os.urandom(MIB)
    for method, command in (("PUT", "put"), ("GET", "get"), ("POST", "delete")):
        faulty.proxy.fault(action, method=method, count=2, **rule)
        more = [faulty.file(data)] if command == "put" else []
        result = faulty.ok(command, "k", *more)
        assert result.stats["retries"] == 2
        assert result.out == (data if command == "get" else b"")


@pytest.mark.req("T13")
@pytest.mark.parametrize("action", ["late-error", "close"])
def test_a_conditional_put_knows_its_own_object_again(faulty, action):
    faulty.proxy.fault(action, method="PUT", count=1)
    faulty.put("once", b"mine", command="put-if-absent")
    assert faulty.ok("get", "once").out == b"mine"
    faulty.proxy.fault("late-error", method="PUT", count=1)
    faulty.fails("EEXIST", "put-if-absent", "once", faulty.file(b"other"))
    assert faulty.ok("get", "once").out == b"mine"


@pytest.mark.req("T13", "T9")
def test_a_truncated_body_is_never_taken(faulty):
    data = os.urandom(MIB)
    faulty.put("k", data)
    faulty.proxy.fault("truncate", method="GET", at=70000, count=2)
    result = faulty.ok("get", "k")
    assert result.out == data and result.stats["retries"] == 2
    faulty.proxy.clear()
    faulty.proxy.fault("truncate", method="GET", at=70000)
    for extent in ((), (10, 500000)):
        result = faulty.run("get", "k", *extent, timeout_ms=500)
        assert result.error in ("EIO", "ETIMEDOUT"), result.err
        assert result.out == b""


@pytest.mark.req("T13")
def test_a_store_that_hangs_is_left(faulty):
    faulty.put("k", b"x")
    faulty.proxy.fault("hang", count=2)
    assert faulty.ok("get", "k", stall_timeout_ms=300).out == b"x"
    faulty.proxy.fault("hang")
    begin = time.monotonic()
    result = faulty.fails("ETIMEDOUT", "get", "k", timeout_ms=700)
    assert time.monotonic() - begin < 5
    assert "deadline" in result.message


@pytest.mark.req("T13")
def test_a_slow_answer_is_no_hang(faulty):
    data = os.urandom(400000)
    faulty.put("k", data)
    faulty.proxy.fault("rate", method="GET", rate=300000)
    result = faulty.ok("get", "k", stall_timeout_ms=2000)
    assert result.out == data and result.stats["retries"] == 0


@pytest.mark.req("T13")
def test_a_store_that_is_not_there(rgw, tmp_path):
    refused = Tool(
        "s3://bucket",
        rgw.env,
        tmp_path,
        endpoint=f"http://127.0.0.1:{free_port()}",
        request_timeout_ms=600,
    )
    result = refused.fails("ETIMEDOUT", "get", "k")
    assert "onnect" in result.message and result.stats["retries"] >= 1
    refused.options["endpoint"] = "https://hibfs-test.invalid"
    assert "resolve" in refused.fails("ETIMEDOUT", "get", "k").message.lower()


@pytest.mark.req("T13")
def test_a_store_that_comes_back_is_used_again(s3_tool, rgw):
    s3_tool.put("k", b"x")
    rgw.hang()
    try:
        wait = s3_tool.background("get", "k", stall_timeout_ms=500)
        with pytest.raises(AssertionError):
            wait_until(lambda: False, "a while of silence", 0.8)
    finally:
        rgw.go_on()
    result = wait()
    assert result.out == b"x" and result.stats["retries"] >= 1


@pytest.mark.req("T13")
def test_a_wrong_etag_harms_nothing(faulty):
    faulty.proxy.fault("etag")
    faulty.put("k", b"data")
    assert faulty.ok("get", "k").out == b"data"


@pytest.mark.req("T13", "T7")
def test_a_failed_upload_in_parts_leaves_nothing(faulty):
    body = faulty.file(bytes(80 * MIB))
    faulty.proxy.fault("error", path="partNumber=2", status=403, code="AccessDenied")
    faulty.fails("EACCES", "put", "big", body)
    faulty.proxy.clear()
    wait_until(lambda: faulty.bucket.uploads() == [], "the upload is aborted")
    assert faulty.bucket.keys() == []
    # A 200 whose body is an error, and the loss of the last answer.
    last = {"method": "POST", "path": "uploadId", "count": 1}
    faulty.proxy.fault("error", status=200, code="InternalError", **last)
    faulty.ok("put", "big", body)
    faulty.proxy.clear()
    faulty.proxy.fault("late-error", **last)
    faulty.ok("put", "big2", body)
    assert faulty.bucket.uploads() == []
    assert faulty.ok("head", "big2").out.split()[0] == str(80 * MIB).encode()


@pytest.mark.req("P8")
def test_a_refused_delete_is_no_delete(faulty):
    faulty.put("k", b"x")
    faulty.proxy.fault("error", method="POST", status=403, code="AccessDenied")
    faulty.fails("EACCES", "delete", "k")
    faulty.proxy.clear()
    faulty.proxy.fault("error", method="POST", status=404, code="")
    faulty.fails("EIO", "delete", "k")
    faulty.proxy.clear()
    assert faulty.keys() == ["k"]


@pytest.mark.req("T5")
def test_a_cancel_is_quick(faulty):
    faulty.put("k", os.urandom(MIB))
    faulty.proxy.fault("hang", method="GET")
    assert int(faulty.ok("cancel-get", "k", 200).out) < 100
    assert faulty.ok("close-get", "k").out == b"0 ECANCELED\n"


def test_a_cancel_ends_a_lookup_of_a_name(rgw, tmp_path):
    tool = Tool(
        "s3://bucket", rgw.env, tmp_path, endpoint="https://hibfs-test.invalid"
    )
    assert int(tool.ok("cancel-get", "k", 100).out) < 100


# --- credentials and TLS ------------------------------------------------------


@pytest.mark.req("A3")
def test_secrets_are_in_no_output(s3_tool, rgw):
    wrong = "wrongsecretwrongsecretwrongsecret"
    s3_tool.env = {**rgw.env, "AWS_SECRET_ACCESS_KEY": wrong}
    s3_tool.fails("EACCES", "put", "k", s3_tool.file(b"x"))
    s3_tool.fails("EACCES", "head", "k")
    s3_tool.env = {**rgw.env, "AWS_ACCESS_KEY_ID": "NOSUCHKEYATALL"}
    s3_tool.fails("EACCES", "list", "")
    s3_tool.env = {**rgw.env, "AWS_SESSION_TOKEN": "atokenatokenatoken"}
    s3_tool.run("get", "k")
    s3_tool.env = {}
    assert "AWS_ACCESS_KEY_ID" in s3_tool.fails("EACCES", "get", "k").message
    output = b"".join(s3_tool.seen).decode()
    for secret in (rgw.secret_key, wrong, "atokenatokenatoken", "NOSUCHKEYATALL"):
        assert secret not in output


def test_credentials_come_from_a_file(s3_tool, rgw):
    folder = s3_tool.folder / ".aws"
    folder.mkdir()
    text = (
        "[tests]\n"
        f"aws_access_key_id = {rgw.access_key}\n"
        f"aws_secret_access_key = {rgw.secret_key}\n"
    )
    (folder / "credentials").write_text(text)
    s3_tool.env = {"AWS_PROFILE": "tests"}
    s3_tool.put("k", b"x")
    s3_tool.env = {}
    s3_tool.ok("get", "k", profile="tests")
    other = s3_tool.folder / "named"
    other.write_text(text.replace("tests", "default"))
    s3_tool.ok("get", "k", credentials=other)


@pytest.mark.req("T13")
def test_credentials_that_have_changed_are_read_again(faulty, rgw):
    named = faulty.folder / "named"
    text = f"[default]\naws_access_key_id={rgw.access_key}\naws_secret_access_key="
    named.write_text(text + "outdated\n")
    faulty.env = {}
    faulty.options["credentials"] = named
    # The request is held until the file is right: then it is tried again.
    faulty.proxy.fault("delay", ms=1000, count=1)
    wait = faulty.background("list", "")
    wait_until(lambda: faulty.proxy.hits(1) == 1, "the request is at the proxy")
    named.write_text(text + rgw.secret_key + "\n")
    result = wait()
    assert result.status == 0, result.err


@pytest.mark.req("A4")
def test_tls_is_verified(s3_tool, rgw):
    s3_tool.options["endpoint"] = rgw.tls_endpoint
    s3_tool.put("k", os.urandom(MIB), ca=rgw.ca)
    begin = time.monotonic()
    for options in ({"ca": rgw.other_ca}, {}, {"ca": "/no/such/file"}):
        s3_tool.fails("EACCES", "get", "k", **options)
    # The certificate is for localhost, not for a bucket's name before it.
    s3_tool.options["endpoint"] = f"https://localhost:{rgw.tls_port}"
    s3_tool.fails("EACCES", "get", "k", ca=rgw.ca)
    assert time.monotonic() - begin < 20


@pytest.mark.req("A4")
def test_plain_http_to_a_foreign_host_is_refused(s3_tool):
    s3_tool.options["endpoint"] = "http://s3.example.com"
    result = s3_tool.fails("EPERM", "get", "k")
    assert "https" in result.message


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(s3_tool, rgw):
    s3_tool.env = {**rgw.env, "http_proxy": f"http://127.0.0.1:{free_port()}"}
    s3_tool.put("k", b"x")
