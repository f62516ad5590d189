"""How hibfs starts, and what it says when it cannot."""

import os
import subprocess
from pathlib import Path

import pytest
from support.hibfs import BUILD, mounts_at
from support.stores import FileStore
from support.trees import assert_same_tree, random_bytes, tree_digest
from support.waiting import wait_until


NOBODY = 65534  # fusermount3 wants a user who has a name


def run_hibfs(*args, env=None):
    """A start that has to fail, or print something: the ended process."""
    return subprocess.run(
        [str(BUILD / "hibfs"), *map(str, args)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.req("A3", "A4")
@pytest.mark.parametrize(
    "options, said",
    [
        ("", "store"),
        ("stor=file:///x", 'store'),
        ("store=ftp://x", "file:///"),
        ("store=file://relative", "file:///"),
        ("store=file:///tmp/x,shard_depth=3", "shard_depth"),
        ("store=s3://b/p,s3_secret_key=abc", "AWS_SECRET_ACCESS_KEY"),
        ("store=s3://b/p,s3_endpoint=http://192.0.2.1:80", "s3_insecure_http"),
        ("store=s3://b/p,s3_endpoint=https://127.0.0.1:1", "credentials"),
        ("store=file:///tmp/x,control_group=nosuchgroup", "nosuchgroup"),
        ("store=file:///tmp/x,conf=/does/not/exist", "/does/not/exist"),
    ],
)
def test_bad_options_get_one_clear_line(disk, options, said):
    (disk / "src").mkdir()
    (disk / "mnt").mkdir()
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("AWS_")
    }
    done = subprocess.run(
        [str(BUILD / "hibfs"), *(["-o", options] if options else []),
         str(disk / "src"), str(disk / "mnt")],
        env={**env, "HOME": str(disk)},
        capture_output=True, text=True, timeout=20, check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "abc" not in done.stderr
    assert not mounts_at(disk / "mnt")


@pytest.mark.parametrize("missing", ["src", "mnt"])
def test_a_missing_directory_is_named(disk, missing):
    for name in {"src", "mnt"} - {missing}:
        (disk / name).mkdir()
    done = run_hibfs("-o", f"store=file://{disk}/st", disk / "src", disk / "mnt")
    assert done.returncode != 0
    assert str(disk / missing) in done.stderr


def test_help_and_version():
    helped = run_hibfs("--help")
    assert helped.returncode == 0
    for word in ("SOURCE MOUNTPOINT", "store=URL", "on_access=", "s3_endpoint="):
        assert word in helped.stdout
    version = run_hibfs("--version")
    assert version.stdout.startswith("hibfs ")


def test_a_second_daemon_on_a_source_is_refused_naming_the_first(mounted, disk):
    (disk / "mnt2").mkdir()
    done = run_hibfs(
        "-o", f"store={mounted.store.url},socket={disk}/s2",
        mounted.source, disk / "mnt2",
    )
    assert done.returncode != 0
    assert str(mounted.process.pid) in done.stderr


def test_a_mount_point_in_use_is_refused(mounted, disk):
    (disk / "src2").mkdir()
    done = run_hibfs(
        "-o", f"store={mounted.store.url},socket={disk}/s2",
        disk / "src2", mounted.mount,
    )
    assert done.returncode != 0
    assert str(mounted.mount) in done.stderr
    (mounted.mount / "still").mkdir()


def test_in_the_background_it_returns_when_the_mount_answers(disk):
    for name in ("src", "mnt"):
        (disk / name).mkdir()
    socket = disk / "sock"
    done = run_hibfs("-o", f"store=file://{disk}/st,socket={socket}",
                     disk / "src", disk / "mnt")
    try:
        assert done.returncode == 0, done.stderr
        assert mounts_at(disk / "mnt")
        (disk / "mnt" / "b" / "s").mkdir(parents=True)
        listed = subprocess.check_output(
            [str(BUILD / "hibctl"), "--socket", str(socket), "list"], text=True
        )
        assert "b/s" in listed
    finally:
        subprocess.run(["umount", str(disk / "mnt")], check=True)
    wait_until(lambda: not socket.exists(), "the daemon has ended after umount")


def test_mount_starts_it_from_fstab_words(disk):
    for name in ("src", "mnt"):
        (disk / name).mkdir()
    options = f"store=file://{disk}/st,socket={disk}/sock,_netdev,nosuid,noauto"
    # mount(8) looks for it in the system's directories only
    installed = Path("/usr/local/bin/hibfs")
    assert not installed.exists(), f"{installed} is in the way of this test"
    installed.symlink_to(BUILD / "hibfs")
    try:
        subprocess.run(
            ["mount", "-t", "fuse.hibfs", "-o", options, str(disk / "src"),
             str(disk / "mnt")],
            check=True,
        )
    finally:
        installed.unlink()
    try:
        (disk / "mnt" / "b" / "s").mkdir(parents=True)
        assert (disk / "src" / "b" / "s").is_dir()
        with open("/proc/self/mounts") as mounts:
            (line,) = [line for line in mounts if f" {disk}/mnt " in line]
        assert "fuse.hibfs" in line and "nosuid" in line
    finally:
        subprocess.run(["umount", str(disk / "mnt")], check=True)
    wait_until(lambda: not (disk / "sock").exists(), "the daemon has ended")


def test_it_can_be_mounted_over_its_source(make_hibfs, file_store, disk):
    data = disk / "data"
    (data / "b" / "s").mkdir(parents=True)
    (data / "b" / "s" / "file").write_text("content")
    hibfs = make_hibfs(file_store, source=data, mount=data).start()
    assert (data / "b" / "s" / "file").read_text() == "content"
    assert ".hibfs" not in os.listdir(data)
    hibfs.ctl("pause", "b/s")
    assert (data / "b" / "s" / "file").read_text() == "content"
    hibfs.stop()
    assert ".hibfs" in os.listdir(data)


@pytest.mark.req("P2", "P3")
def test_every_directory_can_be_a_shard(make_hibfs, store):
    hibfs = make_hibfs(store, options=["shard_depth=1"]).start()
    for name in ("one", "two"):
        (hibfs.mount / name / "sub").mkdir(parents=True)
        (hibfs.mount / name / "sub" / "file").write_bytes(random_bytes(500_000))
    before = tree_digest(hibfs.source / "one")
    hibfs.ctl("pause", "one")
    states = {s["target"]: s["state"] for s in hibfs.ctl("list")["shards"]}
    assert states == {"one": "hibernated", "two": "live"}
    assert sorted(os.listdir(hibfs.mount)) == ["one", "two"]
    hibfs.ctl("resume", "one")
    assert_same_tree(before, tree_digest(hibfs.source / "one"))


@pytest.mark.req("A6", "P2")
def test_an_unprivileged_user_can_run_it(make_hibfs, disk):
    folder = disk / "userstore"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    hibfs = make_hibfs(FileStore(folder), uid=NOBODY).start()
    status = hibfs.ctl("status")["filesystem"]
    assert status["passthrough"] is False
    assert "root" in status["passthrough_reason"]
    # as that user: without allow_other nobody else gets in, root included
    shell = "cd b/s && head -c 700000 /dev/urandom > file && sha256sum file"
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}")
    as_user = ["setpriv", *ids, "--clear-groups"]

    def run(command):
        return subprocess.check_output(
            [*as_user, "sh", "-c", f"cd {hibfs.mount} && {command}"], text=True
        )

    digest = run(f"mkdir -p b/s && {shell}")
    hibfs.ctl("pause", "b/s")
    assert run("stat -c %s b/s/file").strip() == "700000"
    hibfs.ctl("resume", "b/s")
    assert run("cd b/s && sha256sum file") == digest


def test_a_dead_mount_is_replaced(mounted):
    (mounted.mount / "b" / "s").mkdir(parents=True)
    mounted.kill9()
    with pytest.raises(OSError):
        os.listdir(mounted.mount)
    mounted.start()
    assert os.listdir(mounted.mount / "b") == ["s"]
    assert len(mounts_at(mounted.mount)) == 1
