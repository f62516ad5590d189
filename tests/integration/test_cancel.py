"""Stopping what runs: by cancel, by SIGTERM, by losing the client."""

import os
import time

import pytest
from support.trees import assert_same_tree, random_bytes, tree_digest
from support.waiting import wait_until


def fill(shard, files=12, size=3 << 20):
    shard.mkdir(parents=True)
    for number in range(files):
        (shard / f"{number}.seg").write_bytes(random_bytes(size, number))


def status(hibfs, task):
    return hibfs.ctl("task", task)["tasks"][0]["status"]


def state(hibfs):
    return hibfs.ctl("list", "b/s")["shards"][0]["state"]


def stops_within_a_second(hibfs, task):
    started = time.monotonic()
    assert hibfs.ctl("cancel", task)["cancelled"] is True
    wait_until(lambda: status(hibfs, task) == "stopped", "the task has stopped", 5)
    assert time.monotonic() - started < 1


@pytest.fixture
def hibfs(make_hibfs, faulty_store):
    running = make_hibfs(faulty_store).start()
    fill(running.mount / "b" / "s")
    return running


@pytest.mark.req("T5", "P1", "L5")
@pytest.mark.parametrize(
    "path", ["/packs/", "/chunks/", "/manifests/", "bucket.json", "list-type=2"]
)
def test_a_cancelled_pause_leaves_the_shard_live(hibfs, s3proxy, path):
    before = tree_digest(hibfs.source / "b" / "s")
    method = "GET" if path == "list-type=2" else "PUT"
    rule = s3proxy.fault("hang", method=method, path=path)
    task = hibfs.ctl("pause", "--no-wait", "b/s")["task"]
    wait_until(lambda: s3proxy.hits(rule) > 0, "the store hangs")
    stops_within_a_second(hibfs, task)
    assert state(hibfs) == "live"
    (hibfs.mount / "b/s/new").touch()
    (hibfs.mount / "b/s/new").unlink()
    s3proxy.clear()
    hibfs.ctl("pause", "b/s")
    hibfs.ctl("resume", "b/s")
    after = tree_digest(hibfs.source / "b" / "s")
    del before[b""], after[b""]
    assert_same_tree(before, after)


@pytest.mark.req("T5", "P4")
@pytest.mark.parametrize("path", ["/packs/", "/chunks/", "/manifests/", "bucket.json"])
def test_a_cancelled_resume_leaves_the_shard_hibernated(hibfs, s3proxy, path):
    before = tree_digest(hibfs.source / "b" / "s")
    hibfs.ctl("pause", "b/s")
    rule = s3proxy.fault("hang", method="GET", path=path)
    task = hibfs.ctl("resume", "--no-wait", "b/s")["task"]
    wait_until(lambda: s3proxy.hits(rule) > 0, "the store hangs")
    stops_within_a_second(hibfs, task)
    assert state(hibfs) == "hibernated"
    assert os.listdir(hibfs.source / ".hibfs" / "staging") == []
    s3proxy.clear()
    hibfs.ctl("resume", "b/s")
    assert_same_tree(before, tree_digest(hibfs.source / "b" / "s"))


@pytest.mark.req("P5")
def test_cancel_after_success_is_harmless(hibfs):
    task = hibfs.ctl("pause", "--no-wait", "b/s")["task"]
    hibfs.ctl("wait", task)
    answer = hibfs.ctl("cancel", task)
    assert answer["cancelled"] is False
    assert "ended" in answer["message"]
    assert state(hibfs) == "hibernated"


@pytest.mark.req("P5")
def test_a_cancel_after_the_store_has_the_commit_is_too_late(make_hibfs, file_store):
    hibfs = make_hibfs(file_store).start(faults="commit.bucket.after=delay:1000")
    fill(hibfs.mount / "b" / "s", files=2)
    index = file_store.directory / "hibfs_storage/PauseResume/b/bucket.json"
    task = hibfs.ctl("pause", "--no-wait", "b/s")["task"]
    wait_until(index.exists, "bucket.json is written")
    hibfs.ctl("cancel", task)
    hibfs.ctl("wait", task)
    assert status(hibfs, task) == "completed"
    assert state(hibfs) == "hibernated"


@pytest.mark.req("P1", "L5")
def test_a_stop_during_a_pause_leaves_the_shard_live(hibfs, s3proxy):
    before = tree_digest(hibfs.source / "b" / "s")
    rule = s3proxy.fault("hang", method="PUT", path="/manifests/")
    task = hibfs.ctl("pause", "--no-wait", "b/s")["task"]
    wait_until(lambda: s3proxy.hits(rule) > 0, "the store hangs")
    hibfs.stop(seconds=10)
    s3proxy.clear()
    hibfs.start()
    assert state(hibfs) == "live"
    assert status(hibfs, task) == "stopped"
    assert_same_tree(before, tree_digest(hibfs.source / "b" / "s"))
    ends = [
        event["description"]
        for event in hibfs.ctl("events")["events"]
        if event["extra_attributes"].get("task_id") == task
    ]
    assert ends == ["Pause started", "Pause stopped"]


@pytest.mark.req("P1")
def test_a_task_goes_on_without_the_client_that_began_it(hibfs, s3proxy):
    s3proxy.fault("delay", ms=300, method="PUT", path="/packs/")
    client = hibfs.spawn_ctl("pause", "b/s")
    wait_until(
        lambda: hibfs.ctl("list", "b/s")["shards"][0]["operation"], "it has begun"
    )
    client.kill()
    client.communicate()
    (task,) = hibfs.ctl("tasks")["tasks"]
    hibfs.ctl("wait", task["id"])
    assert state(hibfs) == "hibernated"
