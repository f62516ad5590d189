"""The whole road: shards go to a store and come back from it."""

import json
import os
import re
import subprocess

import pytest
from support.hibfs import CtlError
from support.stores import FileStore, copy_store
from support.trees import (
    assert_same_tree,
    disk_bytes,
    make_rich_tree,
    random_bytes,
    sync_tree,
    tree_digest,
)
from support.waiting import wait_until

ROOT = "hibfs_storage/PauseResume/"


def state(hibfs, target):
    (shard,) = hibfs.ctl("list", target)["shards"]
    return shard["state"]


def fill(folder, files=20, size=300_000, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        data = random_bytes(size, seed * 1000 + number)
        (folder / f"{number:04}.seg").write_bytes(data)


# --- one shard ------------------------------------------------------------------


@pytest.mark.req("P2", "P3", "T9")
def test_a_rich_tree_comes_back_identical(mounted_on_each):
    hibfs = mounted_on_each
    shard = hibfs.mount / "bucket" / "shard"
    shard.mkdir(parents=True)
    make_rich_tree(shard)
    sync_tree(hibfs.source / "bucket")
    before = tree_digest(hibfs.source / "bucket" / "shard")
    hibfs.ctl("pause", "bucket/shard")
    assert state(hibfs, "bucket/shard") == "hibernated"
    assert not (hibfs.source / "bucket" / "shard").exists()
    hibfs.ctl("resume", "bucket/shard")
    assert state(hibfs, "bucket/shard") == "live"
    assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))
    assert_same_tree(before, tree_digest(shard))


@pytest.mark.req("P2")
def test_a_paused_shard_is_listed_truly_and_takes_no_room(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard, files=32, size=1 << 20)
    os.utime(shard / "0007.seg", ns=(1, 987654321_123456789))
    before = {
        entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in os.scandir(shard)
    }
    assert disk_bytes(mounted.source) > 32 << 20
    mounted.ctl("pause", "bucket/shard")
    after = {
        entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in os.scandir(shard)
    }
    assert after == before
    assert disk_bytes(mounted.source) < 1 << 20
    used = subprocess.check_output(["du", "-sk", str(mounted.mount)])
    assert int(used.split()[0]) < 1024
    assert all(entry.stat().st_blocks for entry in os.scandir(shard))


@pytest.mark.req("P2", "T6")
def test_an_empty_node_resumes_from_the_store_alone(make_hibfs, store):
    first = make_hibfs(store).start()
    make_rich_tree_in(first, "bucket/one")
    fill(first.mount / "bucket" / "two")
    os.chmod(first.mount / "bucket", 0o2750)
    os.chown(first.mount / "bucket", 1234, 4321)
    before = tree_digest(first.source / "bucket")
    first.ctl("pause", "bucket")
    first.stop()
    second = make_hibfs(store, options=["node=second"]).start()
    second.ctl("resume", "bucket")
    after = tree_digest(second.source / "bucket")
    assert after[b""].pop("mtime_ns") != before[b""].pop("mtime_ns")
    assert_same_tree(before, after)


def make_rich_tree_in(hibfs, target):
    shard = hibfs.mount / target
    shard.mkdir(parents=True)
    make_rich_tree(shard)
    sync_tree(hibfs.source)


@pytest.mark.req("T6", "T8")
def test_objects_lie_where_the_format_says(mounted_on_each):
    hibfs = mounted_on_each
    fill(hibfs.mount / "a bucket" / "shard%1")
    hibfs.ctl("pause", "a bucket/shard%251")
    prefix = ROOT + "a%20bucket/"
    keys = hibfs.store.keys()
    assert prefix + "bucket.json" in keys
    lineage = prefix + "shard%251/"
    rest = [key[len(lineage) :] for key in keys if key.startswith(lineage)]
    assert len(rest) == len(keys) - 1
    packs = [key for key in rest if key.startswith("packs/")]
    assert packs
    for key in packs:
        assert re.fullmatch(r"packs/([0-9a-f]{2})/\1[0-9a-f]{62}", key)
    assert sorted(set(rest) - set(packs)) == [
        "HEAD",
        "chunks/0000000000000001.bin",
        "epochs/0000000000000001",
        "manifests/0000000000000001.json.zst",
    ]
    index = json.loads(hibfs.store.get(prefix + "bucket.json"))
    assert index["shards"][0]["seq"] == 1
    assert index["shards"][0]["name"] == "shard%251"


@pytest.mark.req("T6")
def test_a_copied_store_still_resumes(mounted, make_hibfs, disk):
    fill(mounted.mount / "bucket" / "shard")
    before = tree_digest(mounted.source / "bucket" / "shard")
    mounted.ctl("pause", "bucket")
    (disk / "copy").mkdir()
    copy = FileStore(disk / "copy")
    copy_store(mounted.store, copy)
    other = make_hibfs(copy).start()
    other.ctl("resume", "bucket")
    assert_same_tree(before, tree_digest(other.source / "bucket" / "shard"))


@pytest.mark.req("P2")
def test_pause_and_resume_again_and_again(mounted_on_each):
    hibfs = mounted_on_each
    shard = hibfs.mount / "bucket" / "shard"
    fill(shard)
    for number in range(4):
        (shard / "0003.seg").write_bytes(random_bytes(500_000, number))
        (shard / f"new{number}").write_text(f"round {number}")
        (shard / f"{10 + number:04}.seg").unlink()
        before = tree_digest(hibfs.source / "bucket" / "shard")
        hibfs.ctl("pause", "bucket/shard")
        hibfs.ctl("resume", "bucket/shard")
        assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))


@pytest.mark.req("T11")
def test_only_what_changed_goes_up_again(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard, files=40, size=1 << 20)
    mounted.ctl("pause", "bucket/shard")
    mounted.ctl("resume", "bucket/shard")
    with open(shard / "0005.seg", "r+b") as file:
        file.seek(300_000)
        file.write(b"changed")
    before = mounted.ctl("status")["store"]["bytes_sent"]
    mounted.ctl("pause", "bucket/shard")
    sent = mounted.ctl("status")["store"]["bytes_sent"] - before
    assert 256 << 10 <= sent < 400 << 10


@pytest.mark.req("T11")
def test_an_unchanged_shard_is_not_read_again(mounted_on_each):
    hibfs = mounted_on_each
    shard = hibfs.mount / "bucket" / "shard"
    fill(shard, files=40, size=1 << 20)
    os.link(shard / "0001.seg", shard / "linked")
    with open(shard / "sparse", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"data")
    hibfs.ctl("pause", "bucket/shard")
    hibfs.ctl("resume", "bucket/shard")
    packs = [key for key in hibfs.store.keys() if "/packs/" in key]
    result = hibfs.ctl("pause", "bucket/shard")
    assert result["progress"]["bytes_read"] == 0
    assert result["progress"]["bytes_sent"] < 64 << 10
    assert [key for key in hibfs.store.keys() if "/packs/" in key] == packs
    hibfs.ctl("resume", "bucket/shard")
    before = tree_digest(hibfs.source / "bucket" / "shard")
    # now one that a stale note must not hide: same size, same mtime
    status = os.stat(shard / "0007.seg")
    with open(shard / "0007.seg", "r+b") as file:
        file.write(b"CHANGED")
    os.utime(shard / "0007.seg", ns=(status.st_atime_ns, status.st_mtime_ns))
    result = hibfs.ctl("pause", "bucket/shard")
    # once more under the lock, when it changed within the same clock tick
    assert result["progress"]["bytes_read"] in (1 << 20, 2 << 20)
    hibfs.ctl("resume", "bucket/shard")
    assert (shard / "0007.seg").read_bytes().startswith(b"CHANGED")
    after = tree_digest(hibfs.source / "bucket" / "shard")
    del before[b"0007.seg"], after[b"0007.seg"]
    assert_same_tree(before, after)


@pytest.mark.req("P10")
def test_opening_a_file_of_a_paused_shard_wakes_it(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard)
    data = (shard / "0004.seg").read_bytes()
    mounted.ctl("pause", "bucket/shard")
    os.listdir(shard)
    os.stat(shard / "0004.seg")
    assert state(mounted, "bucket/shard") == "hibernated"
    assert (shard / "0004.seg").read_bytes() == data
    assert state(mounted, "bucket/shard") == "live"


@pytest.mark.req("P10")
@pytest.mark.parametrize(
    "change",
    [
        lambda shard: (shard / "new").write_text("x"),
        lambda shard: (shard / "0001.seg").unlink(),
        lambda shard: (shard / "0001.seg").rename(shard / "other"),
        lambda shard: (shard / "0001.seg").chmod(0o600),
        lambda shard: os.truncate(shard / "0001.seg", 7),
        lambda shard: (shard / "sub").mkdir(),
        lambda shard: os.symlink("x", shard / "link"),
        lambda shard: os.setxattr(shard / "0001.seg", "user.x", b"y"),
    ],
)
def test_changing_a_paused_shard_wakes_it(mounted, change):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard, files=3)
    mounted.ctl("pause", "bucket/shard")
    change(shard)
    assert state(mounted, "bucket/shard") == "live"
    assert (shard / "0002.seg").read_bytes() == random_bytes(300_000, 2)


@pytest.mark.req("P10")
def test_access_fails_when_it_shall(make_hibfs, file_store):
    hibfs = make_hibfs(file_store, options=["on_access=fail"]).start()
    fill(hibfs.mount / "bucket" / "shard", files=2)
    hibfs.ctl("pause", "bucket")
    with pytest.raises(OSError) as caught:
        (hibfs.mount / "bucket" / "shard" / "0000.seg").read_bytes()
    assert os.strerror(caught.value.errno) == "No medium found"
    assert state(hibfs, "bucket/shard") == "hibernated"


@pytest.mark.req("P2")
def test_a_pause_can_leave_nothing_behind(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard)
    before = tree_digest(mounted.source / "bucket" / "shard")
    mounted.ctl("pause", "--purge", "bucket/shard")
    assert os.listdir(mounted.mount / "bucket") == []
    assert state(mounted, "bucket/shard") == "hibernated"
    mounted.ctl("resume", "bucket/shard")
    assert_same_tree(before, tree_digest(mounted.source / "bucket" / "shard"))


# --- buckets --------------------------------------------------------------------


@pytest.mark.req("T2", "T8")
def test_the_shards_of_a_bucket_move_together(mounted_on_each):
    hibfs = mounted_on_each
    for number in range(6):
        fill(hibfs.mount / "bucket" / f"shard{number}", files=5, seed=number)
    before = tree_digest(hibfs.source / "bucket")
    result = hibfs.ctl("pause", "bucket")
    shards = hibfs.ctl("list", "bucket")["shards"]
    assert [shard["state"] for shard in shards] == ["hibernated"] * 6
    index = json.loads(hibfs.store.get(ROOT + "bucket/bucket.json"))
    assert len(index["shards"]) == 6
    assert result["status"] == "completed"
    assert len(result["results"]) == 6
    hibfs.ctl("resume", "bucket")
    after = tree_digest(hibfs.source / "bucket")
    del before[b""], after[b""]
    assert_same_tree(before, after)


@pytest.mark.req("T3")
def test_a_bucket_without_shards_pauses_and_resumes(mounted_on_each):
    hibfs = mounted_on_each
    (hibfs.mount / "empty").mkdir()
    hibfs.ctl("pause", "empty")
    index = json.loads(hibfs.store.get(ROOT + "empty/bucket.json"))
    assert index["shards"] == []
    hibfs.ctl("resume", "empty")
    assert (hibfs.mount / "empty").is_dir()


@pytest.mark.req("T3")
def test_an_empty_shard_pauses_and_resumes(mounted):
    (mounted.mount / "bucket" / "shard").mkdir(parents=True)
    mounted.ctl("pause", "bucket")
    mounted.ctl("resume", "bucket")
    assert os.listdir(mounted.mount / "bucket" / "shard") == []


@pytest.mark.req("T2", "T4", "P1")
def test_the_first_failure_ends_a_bucket_pause_with_all_live(
    make_hibfs, faulty_store, s3proxy
):
    hibfs = make_hibfs(faulty_store).start()
    for number in range(4):
        fill(hibfs.mount / "bucket" / f"shard{number}", files=4, seed=number)
    before = tree_digest(hibfs.source / "bucket")
    s3proxy.fault(
        "error",
        status=403,
        code="AccessDenied",
        method="PUT",
        path="/shard2/manifests/",
    )
    with pytest.raises(CtlError) as caught:
        hibfs.ctl("pause", "bucket")
    assert "shard2" in caught.value.stderr
    listed = hibfs.ctl("tasks")["tasks"][-1]
    (task,) = hibfs.ctl("task", listed["id"])["tasks"]
    assert task["status"] == "failed"
    assert len(task["results"]) == 4
    assert [r["shard"] for r in task["results"] if r["status"] == "failed"] == [
        "shard2"
    ]
    for result in task["results"]:
        assert result["remote"].startswith(ROOT + "bucket/shard")
    shards = hibfs.ctl("list", "bucket")["shards"]
    assert [shard["state"] for shard in shards] == ["live"] * 4
    assert_same_tree(before, tree_digest(hibfs.source / "bucket"))
    (hibfs.mount / "bucket" / "shard1" / "unlocked").write_text("yes")
    s3proxy.clear()
    hibfs.ctl("pause", "bucket")
    hibfs.ctl("resume", "bucket")
    assert (hibfs.mount / "bucket" / "shard1" / "unlocked").read_text() == "yes"


def test_a_removed_shard_stays_removed(mounted):
    for name in ("stays", "goes"):
        fill(mounted.mount / "bucket" / name, files=2)
    mounted.ctl("pause", "bucket")
    mounted.ctl("resume", "bucket")
    subprocess.run(["rm", "-r", str(mounted.mount / "bucket" / "goes")], check=True)
    mounted.ctl("pause", "bucket")
    mounted.ctl("resume", "bucket")
    assert os.listdir(mounted.mount / "bucket") == ["stays"]


# --- refusals -------------------------------------------------------------------


@pytest.mark.req("P9")
def test_a_busy_shard_says_by_whom(make_hibfs, faulty_store, s3proxy):
    hibfs = make_hibfs(faulty_store).start()
    fill(hibfs.mount / "bucket" / "shard", files=3)
    s3proxy.fault("hang", method="PUT", path="/packs/")
    task = hibfs.ctl("pause", "--no-wait", "bucket/shard")["task"]
    for verb in ("pause", "lock"):
        with pytest.raises(CtlError) as caught:
            hibfs.ctl(verb, "bucket/shard")
        assert caught.value.status == 4
        assert "pause" in caught.value.stderr
        assert "bucket/shard" in caught.value.stderr
        assert task in caught.value.stderr
    hibfs.ctl("cancel", task)
    wait_until(lambda: hibfs.ctl("task", task)["tasks"][0]["status"] == "stopped",
               "the task has stopped", seconds=2)
    assert state(hibfs, "bucket/shard") == "live"


@pytest.mark.req("P1")
def test_an_open_file_keeps_a_shard_from_being_paused(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard)
    with open(shard / "0002.seg", "rb") as file:
        with pytest.raises(CtlError) as caught:
            mounted.ctl("pause", "bucket/shard")
        assert caught.value.status == 1
        assert str(os.getpid()) in caught.value.stderr
        assert file.read() == random_bytes(300_000, 2)
    assert state(mounted, "bucket/shard") == "live"
    mounted.ctl("pause", "bucket/shard")


def test_a_pause_can_wait_for_open_files(mounted):
    shard = mounted.mount / "bucket" / "shard"
    fill(shard)
    with open(shard / "0002.seg", "r+b") as file:
        task = mounted.ctl("pause", "--wait-handles", "--no-wait", "bucket/shard")[
            "task"
        ]
        wait_until(
            lambda: mounted.ctl("task", task)["tasks"][0]["progress"]["phase"]
            == "waiting for open files",
            "the pause waits",
        )
        file.write(b"still writable")
    mounted.ctl("wait", task)
    assert state(mounted, "bucket/shard") == "hibernated"
    assert (shard / "0002.seg").read_bytes().startswith(b"still writable")


@pytest.mark.req("T8")
def test_without_bucket_json_or_manifest_resume_refuses(mounted_on_each, make_hibfs):
    hibfs = mounted_on_each
    fill(hibfs.mount / "bucket" / "shard", files=2)
    hibfs.ctl("pause", "bucket")
    manifest = ROOT + "bucket/shard/manifests/0000000000000001.json.zst"
    for key in (ROOT + "bucket/bucket.json", manifest):
        data = hibfs.store.get(key)
        hibfs.store.delete(key)
        other = make_hibfs(hibfs.store, options=["node=other"]).start()
        with pytest.raises(CtlError) as caught:
            other.ctl("resume", "bucket")
        assert key.rpartition("/")[2] in caught.value.stderr
        assert not (other.source / "bucket" / "shard").exists()
        assert other.ctl("list")["shards"] == []
        hibfs.store.put(key, data)
        other.ctl("resume", "bucket")
        other.ctl("pause", "bucket")
        other.stop()
        break


@pytest.mark.req("T9")
def test_one_flipped_byte_in_any_object_is_noticed(mounted):
    fill(mounted.mount / "bucket" / "shard", files=3)
    mounted.ctl("pause", "bucket")
    keys = [
        key
        for key in mounted.store.keys()
        if "/packs/" in key
        or "/manifests/" in key
        or "/chunks/" in key
        or key.endswith("bucket.json")
    ]
    assert len(keys) == 4
    for key in keys:
        path = mounted.store.directory / key
        data = path.read_bytes()
        for at in (0, len(data) // 3, len(data) // 2):
            broken = bytearray(data)
            broken[at] ^= 0x10
            path.chmod(0o600)
            path.write_bytes(broken)
            if "/packs/" in key and at == 0:
                continue  # the header of a pack is nobody's data
            with pytest.raises(CtlError) as caught:
                mounted.ctl("resume", "bucket/shard")
            assert key in caught.value.stderr
            assert state(mounted, "bucket/shard") == "hibernated"
        path.write_bytes(data)
    mounted.ctl("resume", "bucket/shard")
    assert (mounted.mount / "bucket/shard/0002.seg").read_bytes() == random_bytes(
        300_000, 2
    )


@pytest.mark.req("T10")
def test_a_newer_format_is_refused_by_name_and_number(mounted):
    fill(mounted.mount / "bucket" / "shard", files=2)
    mounted.ctl("pause", "bucket")
    key = ROOT + "bucket/shard/manifests/0000000000000001.json.zst"
    path = mounted.store.directory / key
    plain = subprocess.check_output(["zstd", "-dc", str(path)])
    newer = plain.replace(b'"version":1', b'"version":7', 1)
    assert newer != plain
    path.chmod(0o600)
    path.write_bytes(subprocess.check_output(["zstd", "-c"], input=newer))
    with pytest.raises(CtlError) as caught:
        mounted.ctl("resume", "bucket/shard")
    assert "hibfs-manifest" in caught.value.stderr
    assert "7" in caught.value.stderr
    assert state(mounted, "bucket/shard") == "hibernated"


@pytest.mark.req("A2", "T9")
@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "a/../../b", ""])
def test_a_manifest_cannot_leave_its_shard(mounted, name):
    fill(mounted.mount / "bucket" / "shard", files=1)
    mounted.ctl("pause", "bucket")
    key = ROOT + "bucket/shard/manifests/0000000000000001.json.zst"
    path = mounted.store.directory / key
    plain = subprocess.check_output(["zstd", "-dc", str(path)])
    hostile = plain.replace(b'"path":"0000.seg"', b'"path":"%s"' % name.encode(), 1)
    assert hostile != plain
    path.chmod(0o600)
    path.write_bytes(subprocess.check_output(["zstd", "-c"], input=hostile))
    with pytest.raises(CtlError) as caught:
        mounted.ctl("resume", "bucket/shard")
    assert "manifests/" in caught.value.stderr
    assert state(mounted, "bucket/shard") == "hibernated"


@pytest.mark.req("A2")
@pytest.mark.parametrize(
    "target", ["..", "../x", "bucket/..", "bucket/%2e%2e", "/etc", "a/b/c", ".hibfs",
               "bucket/%00", "%zz", "x" * 300, ""]
)
def test_hostile_targets_are_refused(mounted, target):
    for verb in ("pause", "resume", "lock"):
        done = mounted.ctl(verb, target, check=False)
        assert done.returncode in (1, 2, 5)
        assert done.stderr.strip()


@pytest.mark.req("P1")
def test_resume_without_room_says_so_and_leaves_nothing(make_hibfs, store, loop_fs):
    first = make_hibfs(store).start()
    fill(first.mount / "bucket" / "shard", files=20, size=10 << 20)
    first.ctl("pause", "bucket")
    first.stop()
    small = loop_fs("ext4", "120M")
    (small / "source").mkdir()
    second = make_hibfs(store, source=small / "source", options=["node=second"])
    second.start()
    with pytest.raises(CtlError) as caught:
        second.ctl("resume", "bucket")
    assert "room" in caught.value.stderr
    assert os.listdir(second.source / ".hibfs" / "staging") == []
    assert second.ctl("list")["shards"] == []


@pytest.mark.req("P14")
def test_a_stale_owner_cannot_commit(make_hibfs, store):
    first = make_hibfs(store, options=["node=first"]).start()
    fill(first.mount / "bucket" / "shard", files=2)
    first.ctl("pause", "bucket")
    first.ctl("resume", "bucket")
    second = make_hibfs(store, options=["node=second"]).start()
    with pytest.raises(CtlError) as caught:
        second.ctl("resume", "bucket")
    assert "first" in caught.value.stderr
    second.ctl("resume", "--take-over", "bucket")
    (first.mount / "bucket" / "shard" / "stale").write_text("x")
    with pytest.raises(CtlError) as caught:
        first.ctl("pause", "bucket")
    assert "taken over" in caught.value.stderr
    assert state(first, "bucket/shard") == "live"
    assert (first.mount / "bucket" / "shard" / "stale").read_text() == "x"
    second.ctl("pause", "bucket")


def test_a_directory_is_not_paused_over_a_foreign_lineage(make_hibfs, store):
    first = make_hibfs(store, options=["node=first"]).start()
    fill(first.mount / "bucket" / "shard", files=2)
    first.ctl("pause", "bucket")
    second = make_hibfs(store, options=["node=second"]).start()
    (second.mount / "bucket" / "shard").mkdir(parents=True)
    (second.mount / "bucket" / "shard" / "mine").write_text("mine")
    with pytest.raises(CtlError) as caught:
        second.ctl("pause", "bucket")
    assert "--adopt" in caught.value.stderr
    second.ctl("pause", "--adopt", "bucket")
    second.ctl("resume", "bucket")
    assert (second.mount / "bucket" / "shard" / "mine").read_text() == "mine"


# --- crashes ----------------------------------------------------------------------

PAUSE_POINTS = [
    "pause.round.before",
    "upload.pack.before",
    "upload.pack.after",
    "pause.freeze.before",
    "pause.last_round.before",
    "commit.chunks.before",
    "commit.chunks.after",
    "commit.manifest.before",
    "commit.manifest.after",
    "commit.bucket.before",
    "commit.bucket.after",
    "pause.committed.before",
    "pause.stub_rename.before",
    "pause.stub_rename.after",
    "pause.hibernated.before",
]


@pytest.mark.req("P1", "P6", "L5")
@pytest.mark.parametrize("point", PAUSE_POINTS)
def test_a_pause_that_is_killed_loses_nothing(make_hibfs, file_store, point):
    hibfs = make_hibfs(file_store).start(faults=f"{point}=kill")
    fill(hibfs.mount / "bucket" / "shard", files=6)
    sync_tree(hibfs.source)
    before = tree_digest(hibfs.source / "bucket" / "shard")
    hibfs.ctl("pause", "bucket/shard", check=False)
    hibfs.wait_killed()
    hibfs.start()
    assert state(hibfs, "bucket/shard") in ("live", "hibernated")
    assert os.listdir(hibfs.source / ".hibfs" / "staging") == []
    if state(hibfs, "bucket/shard") == "live":
        assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))
        (hibfs.mount / "bucket" / "shard" / "x").write_text("unlocked")
        (hibfs.mount / "bucket" / "shard" / "x").unlink()
        os.utime(hibfs.mount / "bucket" / "shard", ns=(0, before_mtime(before)))
        hibfs.ctl("pause", "bucket/shard")
    hibfs.ctl("resume", "bucket/shard")
    assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))


@pytest.mark.req("P6", "T2")
@pytest.mark.parametrize(
    "point", ["commit.bucket.after", "pause.committed.before@1",
              "pause.committed.before@2", "pause.committed.before@3",
              "pause.stub_rename.before@2", "pause.hibernated.before@1"]
)
def test_a_bucket_is_paused_all_or_not_at_all_through_a_crash(
    make_hibfs, file_store, point
):
    name, _, number = point.partition("@")
    hibfs = make_hibfs(file_store).start(faults=f"{name}=kill@{number or 1}")
    for shard in range(3):
        fill(hibfs.mount / "bucket" / f"shard{shard}", files=3, seed=shard)
    before = tree_digest(hibfs.source / "bucket")
    hibfs.ctl("pause", "bucket", check=False)
    hibfs.wait_killed()
    hibfs.start()
    states = {s["state"] for s in hibfs.ctl("list", "bucket")["shards"]}
    assert states in ({"live"}, {"hibernated"})
    if states == {"live"}:
        hibfs.ctl("pause", "bucket")
    hibfs.ctl("resume", "bucket")
    after = tree_digest(hibfs.source / "bucket")
    del before[b""], after[b""]
    assert_same_tree(before, after)


def before_mtime(digest):
    """The recorded mtime of the tree's top."""
    return digest[b""]["mtime_ns"]


RESUME_POINTS = [
    "epoch.take.before",
    "epoch.take.after",
    "resume.epoch.after",
    "resume.build.before",
    "fetch.pack.before",
    "resume.sync.before",
    "resume.publish.before",
    "resume.publish.after",
    "trash.rename.before",
    "trash.remove.before",
]


@pytest.mark.req("P4", "P6")
@pytest.mark.parametrize("point", RESUME_POINTS)
def test_a_resume_that_is_killed_can_be_given_again(make_hibfs, file_store, point):
    hibfs = make_hibfs(file_store).start()
    fill(hibfs.mount / "bucket" / "shard", files=6)
    sync_tree(hibfs.source)
    before = tree_digest(hibfs.source / "bucket" / "shard")
    hibfs.ctl("pause", "bucket/shard")
    hibfs.restart(faults=f"{point}=kill")
    hibfs.ctl("resume", "bucket/shard", check=False)
    hibfs.wait_killed()
    hibfs.start()
    assert state(hibfs, "bucket/shard") in ("live", "hibernated")
    assert os.listdir(hibfs.source / ".hibfs" / "staging") == []
    assert os.listdir(hibfs.source / ".hibfs" / "trash") == []
    if state(hibfs, "bucket/shard") == "hibernated":
        hibfs.ctl("resume", "bucket/shard")
    assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))
    hibfs.ctl("pause", "bucket/shard")
    hibfs.ctl("resume", "bucket/shard")
    assert_same_tree(before, tree_digest(hibfs.source / "bucket" / "shard"))
