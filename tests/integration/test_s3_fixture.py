"""The tests' own S3 server, proxy, disks and trees do what they promise."""

import http.client
import ssl
import subprocess
import time

import pytest
from support import trees
from support.s3client import S3Error
from support.stores import S3Store, copy_store


@pytest.fixture
def bucket(rgw):
    return rgw.fresh_bucket()


def test_objects_are_put_read_listed_and_deleted(bucket):
    names = ["a/1", "a/2 ü%+&", "b/x"]
    for name in names:
        bucket.put(name, name.encode() * 10)
    assert bucket.keys() == names
    assert bucket.keys("a/") == names[:2]
    assert bucket.get(names[1]) == names[1].encode() * 10
    assert bucket.get("a/1", first=1, last=3) == b"/1a"
    assert bucket.head("a/1")["content-length"] == "30"
    bucket.delete("a/1")
    assert bucket.head("a/1") is None
    assert bucket.uploads() == []


def test_a_listing_goes_over_many_pages(bucket):
    for number in range(1005):
        bucket.put(f"k/{number:04}", b"")
    assert len(bucket.keys("k/")) == 1005


def test_signatures_and_conditions_are_really_checked(rgw, bucket):
    stranger = rgw.client(secret_key="wrong")
    with pytest.raises(S3Error) as refused:
        stranger.call("GET", f"/{bucket.name}")
    assert refused.value.code == "SignatureDoesNotMatch"
    bucket.put("once", b"1", {"If-None-Match": "*"})
    with pytest.raises(S3Error) as refused:
        bucket.put("once", b"2", {"If-None-Match": "*"})
    assert refused.value.status == 412


def test_tls_is_answered_with_a_certificate_of_the_ca_alone(rgw, bucket):
    assert rgw.tls_client().call("GET", f"/{bucket.name}")
    with pytest.raises(ssl.SSLCertVerificationError):
        rgw.tls_client(rgw.other_ca).call("GET", f"/{bucket.name}")


class TestFaults:
    """Each action of the proxy."""

    @pytest.fixture
    def through(self, rgw, s3proxy, bucket):
        bucket.put("obj", bytes(range(256)) * 1000)
        bucket.client = rgw.client(port=s3proxy.port)
        return bucket

    def test_without_rules_it_only_passes_on(self, s3proxy, through):
        assert through.get("obj") == bytes(range(256)) * 1000
        through.put("new", b"x" * 3_000_000)
        assert through.head("new")["content-length"] == "3000000"
        assert [r.method for r in s3proxy.requests()] == ["GET", "PUT", "HEAD"]
        s3proxy.forget_requests()
        assert s3proxy.requests() == []

    def test_an_error_meets_the_nth_request_of_its_kind(self, s3proxy, through):
        rule = s3proxy.fault("error", method="GET", path="obj", skip=1, count=1)
        through.get("obj")
        through.head("obj")
        with pytest.raises(S3Error) as error:
            through.get("obj")
        assert (error.value.status, error.value.code) == (503, "SlowDown")
        through.get("obj")
        assert s3proxy.hits(rule) == 1

    def test_an_error_body_may_come_with_200(self, s3proxy, through):
        s3proxy.fault("error", status=200, code="InternalError")
        assert b"<Code>InternalError</Code>" in through.get("obj")

    def test_close_gives_no_answer(self, s3proxy, through):
        s3proxy.fault("close", count=1)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            through.get("obj")
        through.get("obj")

    def test_a_late_error_was_carried_out(self, s3proxy, through):
        s3proxy.fault("late-error", method="PUT", status=500, code="InternalError")
        with pytest.raises(S3Error):
            through.put("late", b"there")
        s3proxy.clear()
        assert through.get("late") == b"there"

    def test_a_body_is_truncated(self, s3proxy, through):
        s3proxy.fault("truncate", method="GET", at=100_000)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            through.get("obj")

    def test_a_bit_is_flipped(self, s3proxy, through):
        s3proxy.fault("flip", method="GET", at=100_000)
        wanted = bytearray(bytes(range(256)) * 1000)
        wanted[100_000] ^= 1
        assert through.get("obj") == wanted

    def test_an_etag_is_wrong(self, s3proxy, through):
        s3proxy.fault("etag")
        assert through.put("x", b"x") == '"' + "0" * 32 + '"'

    def test_delay_and_rate_take_their_time(self, s3proxy, through):
        s3proxy.fault("delay", ms=300, method="HEAD")
        s3proxy.fault("rate", rate=200_000, method="GET")
        start = time.monotonic()
        through.head("obj")
        assert time.monotonic() - start >= 0.3
        start = time.monotonic()
        assert len(through.get("obj")) == 256_000
        assert time.monotonic() - start >= 0.9


def test_a_store_is_copied_whole(rgw, file_store):
    file_store.put("a/b", b"1")
    file_store.put("c", b"2")
    target = S3Store(rgw, rgw.fresh_bucket())
    copy_store(file_store, target)
    assert target.keys() == ["a/b", "c"]
    assert target.keys("a/") == ["a/b"]
    assert target.get("a/b") == b"1"
    target.delete("c")
    assert target.keys() == ["a/b"]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_rich_tree_survives_a_faithful_copy_and_shows_each_change(loop_fs, kind):
    root = loop_fs(kind, "1G")
    before = trees.make_rich_tree(root / "a")
    # cp knows no holes of its own making: it copies those of the source.
    subprocess.run(["cp", "-a", "--sparse=auto", root / "a", root / "b"], check=True)
    after = trees.tree_digest(root / "b")
    trees.assert_same_tree(_without(before, "extents"), _without(after, "extents"))
    (root / "b/files/one").write_bytes(b"y")
    (root / "b/links/two").unlink()
    (root / "b/holes/new").touch()
    changed = "\n".join(
        trees.tree_differences(before, trees.tree_digest(root / "b", holes=True))
    )
    for sign in (
        "b'files/one': content",
        "b'files/one': mtime_ns",
        "b'links/two': is missing",
        "b'links/one': linked_with",
        "b'holes/new': should not be there",
    ):
        assert sign in changed
    assert trees.disk_bytes(root / "a") < 64 * trees.MIB


def _without(digest, key):
    return {
        name: {k: v for k, v in record.items() if k != key}
        for name, record in digest.items()
    }
