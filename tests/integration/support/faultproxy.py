"""Faults on demand between hibfs and the S3 server: nginx with Lua.

A rule says what happens (`action`) to which requests:

    error       answered with `status` and an S3 error body of `code`
    close       the connection is reset, no answer
    hang        no answer, the connection stays
    delay       passed on after `ms`
    late-error  carried out by the server, but the client is told `status`, `code`
    truncate    the answer's body ends before byte `at`, connection closed
    flip        one bit of the answer's byte `at` is changed
    etag        the answer carries a wrong ETag
    rate        the answer comes with `rate` bytes a second

and is narrowed by `method`, `path` (a regular expression on path and query),
`skip` (lets the first n of them pass), `count` (then meets n, default all),
`percent` (a chance).
"""

import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .process import Process
from .waiting import accepts, free_port

_MODULES = Path("/usr/lib/nginx/modules")
_CONF = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
daemon off;
master_process off;
worker_processes 1;
pid {dir}/pid;
error_log {dir}/error.log error;
events {{ worker_connections 4096; }}
http {{
    log_format requests '$request_method $status $body_bytes_sent $request_uri';
    access_log {dir}/access.log requests;
    client_max_body_size 0;
    client_body_temp_path {dir}/tmp;
    proxy_temp_path {dir}/tmp;
    fastcgi_temp_path {dir}/tmp;
    uwsgi_temp_path {dir}/tmp;
    scgi_temp_path {dir}/tmp;
    keepalive_requests 1000000;
    reset_timedout_connection on;
    lua_package_path '{here}/?.lua;;';
    upstream s3 {{ server {backend}; keepalive 32; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_request_buffering off;
    proxy_read_timeout 1d;
    server {{
        listen 127.0.0.1:{port};
        location = /__faults {{
            access_log off;
            content_by_lua_block {{ require("faults").control() }}
        }}
        location / {{
            access_by_lua_block {{ return require("faults").access() }}
            header_filter_by_lua_block {{ require("faults").header() }}
            body_filter_by_lua_block {{ return require("faults").body() }}
            proxy_pass http://s3;
            proxy_buffering off;
        }}
        location @slow {{ # limit_rate holds for buffered answers only
            proxy_pass http://s3;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Request:
    """One request that the proxy has seen, as its log has it."""

    method: str
    status: int
    sent_bytes: int
    uri: str


class FaultProxy:
    """The running proxy in front of an Rgw."""

    def __init__(self, directory, rgw):
        directory.mkdir(parents=True)
        (directory / "tmp").mkdir()
        self.rgw = rgw
        self.port = free_port()
        self._directory = directory
        self._log_start = 0
        config = directory / "nginx.conf"
        # As root, a worker would drop its rights and could not read `dir`.
        config.write_text(
            _CONF.format(
                modules=_MODULES,
                dir=directory,
                here=Path(__file__).parent,
                port=self.port,
                backend=f"127.0.0.1:{rgw.port}",
            )
        )
        self._process = Process(
            ("/usr/sbin/nginx", "-c", config, "-p", directory, "-e", "stderr"),
            directory / "out",
        )
        try:
            self._process.wait_for(lambda: accepts(self.port), "the proxy listens")
        except BaseException:
            self.stop()
            raise

    def _control(self, **arguments):
        query = urllib.parse.urlencode(
            {name: value for name, value in arguments.items() if value is not None}
        )
        with urllib.request.urlopen(f"{self.endpoint}/__faults?{query}") as answer:
            return answer.read().decode()

    @property
    def endpoint(self):
        """Where it answers in plain HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, action, **rule):
        """Adds a rule and returns its number; see the module's comment."""
        if action in ("error", "late-error"):
            rule = {"status": 503, "code": "SlowDown", **rule}
        return int(self._control(action=action, **rule))

    def clear(self):
        """Ends all rules."""
        self._control(clear=1)

    def hits(self, number):
        """How many requests the rule `number` has met."""
        return int(self._control().splitlines()[number - 1])

    def forget_requests(self):
        """Lets requests() begin here."""
        self._control()
        self._log_start = (self._directory / "access.log").stat().st_size

    def requests(self, method=None, path=""):
        """The requests that have ended, oldest first, narrowed like a rule."""
        # A line is written after its answer is sent; one worker does one thing
        # after the other, so after this answer all earlier lines are there.
        self._control()
        with (self._directory / "access.log").open() as log:
            log.seek(self._log_start)
            fields = [line.split(maxsplit=3) for line in log.read().splitlines()]
        seen = [Request(f[0], int(f[1]), int(f[2]), f[3]) for f in fields]
        return [
            request
            for request in seen
            if method in (None, request.method) and re.search(path, request.uri)
        ]

    def stop(self):
        """Ends it; the port refuses connections from then on."""
        self._process.kill()
