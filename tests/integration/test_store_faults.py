"""A store that misbehaves: tasks succeed in the end or fail clearly."""

import time

import pytest
from support.hibfs import CtlError
from support.stores import S3Store
from support.trees import assert_same_tree, random_bytes, tree_digest
from support.waiting import free_port, wait_until


def fill(shard, files=8, size=3 << 20):
    shard.mkdir(parents=True)
    for number in range(files):
        (shard / f"{number}.seg").write_bytes(random_bytes(size, number))


def state(hibfs):
    return hibfs.ctl("list", "b/s")["shards"][0]["state"]


FAULTS = {
    "slow down": {"action": "error", "count": 4},
    "internal error": {"action": "error", "status": 500, "code": "InternalError",
                       "count": 4},
    "too many": {"action": "error", "status": 429, "code": "SlowDown", "count": 4},
    "reset": {"action": "close", "count": 4},
    "lost answer": {"action": "late-error", "count": 4},
    "delay": {"action": "delay", "ms": 200, "count": 4},
}


@pytest.mark.req("T13")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", ["/packs/", "/manifests/|/chunks/", "bucket.json|/epochs/"])
def test_passing_faults_are_retried(make_hibfs, faulty_store, s3proxy, fault, path):
    hibfs = make_hibfs(faulty_store).start()
    fill(hibfs.mount / "b" / "s")
    before = tree_digest(hibfs.source / "b" / "s")
    s3proxy.fault(path=path, **FAULTS[fault])
    hibfs.ctl("pause", "b/s")
    s3proxy.clear()
    s3proxy.fault(path=path, **FAULTS[fault])
    hibfs.ctl("resume", "b/s")
    assert_same_tree(before, tree_digest(hibfs.source / "b" / "s"))
    assert hibfs.ctl("status")["store"]["retries"] > 0 or fault == "delay"


@pytest.mark.req("T13", "T9")
@pytest.mark.parametrize("action", ["truncate", "flip"])
def test_damaged_answers_never_become_files(make_hibfs, faulty_store, s3proxy, action):
    hibfs = make_hibfs(faulty_store).start()
    fill(hibfs.mount / "b" / "s")
    before = tree_digest(hibfs.source / "b" / "s")
    hibfs.ctl("pause", "b/s")
    s3proxy.fault(action, method="GET", path="/packs/", at=100_000, count=1)
    done = hibfs.ctl("resume", "b/s", check=False)
    if done.returncode:
        assert "/packs/" in done.stderr
        assert state(hibfs) == "hibernated"
        hibfs.ctl("resume", "b/s")
    assert_same_tree(before, tree_digest(hibfs.source / "b" / "s"))


@pytest.mark.req("T13")
def test_commands_answer_while_the_store_is_a_black_hole(
    make_hibfs, faulty_store, s3proxy
):
    hibfs = make_hibfs(faulty_store).start()
    fill(hibfs.mount / "b" / "s")
    rule = s3proxy.fault("hang")
    task = hibfs.ctl("pause", "--no-wait", "b/s")["task"]
    wait_until(lambda: s3proxy.hits(rule) > 0, "the store hangs")
    for method in ("list", "status", "tasks", "config", "version"):
        started = time.monotonic()
        assert "result" in hibfs.call(method)
        assert time.monotonic() - started < 0.1
    (hibfs.mount / "b/s/new").touch()
    hibfs.ctl("cancel", task)
    hibfs.stop(seconds=5)


@pytest.mark.req("A3", "T13")
def test_wrong_credentials_are_told_and_shown_nowhere(make_hibfs, rgw):
    store = S3Store(rgw, rgw.fresh_bucket())
    secret = "wrong-secret-that-must-not-be-seen-0123"
    store.env = {**store.env, "AWS_SECRET_ACCESS_KEY": secret}
    hibfs = make_hibfs(store).start()
    fill(hibfs.mount / "b" / "s", files=1)
    with pytest.raises(CtlError) as caught:
        hibfs.ctl("pause", "b/s")
    assert "credentials" in caught.value.stderr.lower()
    assert state(hibfs) == "live"
    shown = [
        str(hibfs.ctl(*words, check=False).stdout)
        for words in (["status"], ["config"], ["tasks"], ["events"], ["list"])
    ]
    shown += [caught.value.stderr, hibfs.log_text()]
    for path in (hibfs.source / ".hibfs").rglob("*"):
        if path.is_file():
            shown.append(path.read_text(errors="replace"))
    assert not any(secret in text for text in shown)
    with open(f"/proc/{hibfs.process.pid}/cmdline") as line:
        assert secret not in line.read()


@pytest.mark.req("P12")
def test_it_starts_without_its_store(make_hibfs, s3_store, rgw):
    hibfs = make_hibfs(s3_store).start()
    fill(hibfs.mount / "b" / "s", files=1)
    (hibfs.mount / "b" / "live").mkdir()
    hibfs.ctl("pause", "b/s")
    options = list(s3_store.options)
    s3_store.options = [f"s3_endpoint=http://127.0.0.1:{free_port()}", "s3_path_style"]
    hibfs.restart()
    (hibfs.mount / "b/live/file").write_text("works")
    assert (hibfs.mount / "b/s/0.seg").stat().st_size == 3 << 20
    task = hibfs.ctl("resume", "--no-wait", "b/s")["task"]
    wait_until(lambda: hibfs.ctl("status")["store"]["last_error"], "it is told")
    hibfs.ctl("cancel", task)
    wait_until(lambda: state(hibfs) == "hibernated", "the resume has stopped")
    s3_store.options = options
    hibfs.restart()
    assert (hibfs.mount / "b/s/0.seg").read_bytes() == random_bytes(3 << 20, 0)
