"""A real S3 server: a one-machine Ceph with a RADOS gateway on loopback.

One monitor, one OSD, one gateway; no manager, no systemd. The store is in
memory and ends with the OSD; HIBFS_TEST_CEPH=bluestore keeps it on disk
instead, for big runs.
"""

import os
import secrets
import signal
import ssl
import subprocess
import uuid

from . import certificates
from .process import Process
from .s3client import S3Client
from .waiting import accepts, free_port

# Threads, times and limits are for a start in about a second. Not obvious:
# - without tcp_nodelay small GETs run at 23/s;
# - with auth none the monitor's connections need "crc" to be named;
# - one replica on one host needs chooseleaf 0 and pools of size one.
_CONF = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_port}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
run dir = {dir}/run
admin socket = {dir}/run/$name.asok
log file = {dir}/log/$name.log
log to stderr = false
err to stderr = true
debug rocksdb = 1/1
debug bluestore = 0/0
debug ms = 0/0
max open files = 65536
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
[mon]
mon data = {dir}/mon
mon cluster log file = {dir}/log/cluster.log
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail warn = 1
mon data avail crit = 1
mon osd nearfull ratio = .96
mon osd backfillfull ratio = .97
mon osd full ratio = .98
[osd]
osd data = {dir}/osd
osd objectstore = {store}
osd memory target = 1073741824
osd max object size = 256M
osd max scrubs = 0
memstore device bytes = {gib}G
bluestore block size = {block_bytes}
bluestore block create = true
bluestore block wal create = false
bluestore block db create = false
bluestore fsck on mount = false
bluestore fsck on mkfs = false
bdev aio poll ms = 20
[client]
log file = {dir}/log/client.log
admin socket =
[client.rgw]
admin socket = {dir}/run/rgw.asok
log file = {dir}/log/rgw.log
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1 \
ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={pem}
rgw thread pool size = 64
rgw dns name = localhost
rgw data = {dir}/run
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 60
"""

_START_SECONDS = 60


class Rgw:
    """The running server. Its cluster and its data lie in `directory`."""

    def __init__(self, directory, store="memstore", gib=20):
        self.directory = directory
        self.access_key = "hibfstest"
        self.secret_key = secrets.token_hex(20)
        self._processes = []
        self._config = directory / "ceph.conf"
        for name in ("mon", "osd", "log", "run"):
            (directory / name).mkdir(parents=True)
        self.ca = certificates.make_authority(directory, "ca")
        self.other_ca = certificates.make_authority(directory, "other-ca")
        self.port, self.tls_port = free_port(), free_port()
        self._mon_port = free_port()
        self._fsid = str(uuid.uuid4())
        self._config.write_text(
            _CONF.format(
                fsid=self._fsid,
                dir=directory,
                store=store,
                gib=gib,
                block_bytes=gib << 30,
                mon_port=self._mon_port,
                port=self.port,
                tls_port=self.tls_port,
                pem=certificates.make_server(directory, self.ca),
            )
        )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @classmethod
    def start(cls, directory):
        """Starts one; a port taken by another meanwhile is tried anew once."""
        store = os.environ.get("HIBFS_TEST_CEPH", "memstore")
        try:
            return cls(directory / "first", store)
        except (AssertionError, subprocess.CalledProcessError):
            return cls(directory / "second", store)

    def _tool(self, *args):
        return subprocess.run(
            [str(arg) for arg in args],
            check=True,
            timeout=_START_SECONDS,
            stdout=subprocess.PIPE,
            stderr=(self.directory / "log" / "tools.err").open("ab"),
            cwd=self.directory,
            text=True,
        ).stdout

    def _daemon(self, *args):
        name = f"{args[0]}.out"
        # Debian 13's OSD has a relative path for its classes: it starts in /.
        process = Process((*args, "-f"), self.directory / "log" / name, cwd="/")
        self._processes.append(process)
        return process

    def _start(self):
        ceph = ("-c", self._config)
        osd_id = str(uuid.uuid4())
        monmap = self.directory / "monmap"
        self._tool(
            *("monmaptool", "--create", "--fsid", self._fsid),
            *("--addv", "a", f"[v2:127.0.0.1:{self._mon_port}]", monmap),
        )
        self._tool("ceph-mon", *ceph, "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemon("ceph-mon", *ceph, "-i", "a")
        self._tool("ceph", *ceph, "osd", "create", osd_id, 0)
        self._tool(
            *("ceph-osd", *ceph, "-i", 0, "--mkfs", "--no-mon-config"),
            *("--osd-uuid", osd_id),
        )
        osd = self._daemon("ceph-osd", *ceph, "-i", 0)
        # The gateway tries again only every 5 s if it comes before the OSD.
        osd.wait_for(
            lambda: " 1 up" in self._tool("ceph", *ceph, "osd", "stat"),
            "the OSD is up",
            _START_SECONDS,
        )
        self._tool(
            *("radosgw-admin", *ceph, "-n", "client.rgw", "user", "create"),
            *("--uid=hibfs", "--display-name=hibfs"),
            *("--access-key", self.access_key, "--secret", self.secret_key),
        )
        gateway = self._daemon("radosgw", *ceph, "-n", "client.rgw")
        for port in (self.port, self.tls_port):
            gateway.wait_for(
                lambda: accepts(port),  # pylint: disable=cell-var-from-loop
                f"port {port} answers",
                _START_SECONDS,
            )

    def stop(self):
        """Ends all at once: the gateway takes 5 s to end when asked nicely."""
        for process in reversed(self._processes):
            process.kill()
        self._processes.clear()

    @property
    def endpoint(self):
        """Where it answers in plain HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self):
        """Where it answers with a certificate of `ca`."""
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def env(self):
        """The credentials, as the program under test takes them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self, port=None, secret_key=None):
        """A client of its own make, by plain HTTP."""
        return S3Client(
            "127.0.0.1",
            port or self.port,
            self.access_key,
            secret_key or self.secret_key,
        )

    def tls_client(self, ca=None):
        """The same over TLS, trusting `ca` (default: the right one)."""
        context = ssl.create_default_context(cafile=str(ca or self.ca))
        return S3Client(
            "127.0.0.1", self.tls_port, self.access_key, self.secret_key, context
        )

    def fresh_bucket(self):
        """A new, empty bucket."""
        return self.client().create_bucket(f"hibfs-{secrets.token_hex(6)}")

    def hang(self):
        """Stops answering, with connections open, until go_on()."""
        self._processes[-1].signal(signal.SIGSTOP)

    def go_on(self):
        """Ends hang()."""
        self._processes[-1].signal(signal.SIGCONT)
