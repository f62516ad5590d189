"""A small S3 client that shares nothing with the one under test.

SigV4 (AWS Signature Version 4) over http.client, path style. It says what the
server says: a status other than 2xx is an S3Error with the server's code.
"""

import datetime
import hashlib
import hmac
import http.client
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

_UNRESERVED = "-_.~"


@dataclass(frozen=True)
class Object:
    """One line of a listing."""

    key: str
    size: int
    etag: str


class S3Error(Exception):
    """An answer other than 2xx."""

    def __init__(self, status, code, body):
        super().__init__(f"{status} {code}: {body[:300]!r}")
        self.status = status
        self.code = code


class S3Client:
    """One endpoint with one pair of keys; `context` is for TLS."""

    def __init__(self, host, port, access_key, secret_key, context=None):
        self.host = f"{host}:{port}"
        self.context = context
        self.access_key = access_key
        self._secret_key = secret_key
        self.region = "us-east-1"

    def request(self, method, path, query=None, body=b"", headers=None):
        """One signed request: (status, headers with lower-case names, body)."""
        if self.context is None:
            connection = http.client.HTTPConnection(self.host, timeout=60)
        else:
            connection = http.client.HTTPSConnection(
                self.host, timeout=60, context=self.context
            )
        quoted = urllib.parse.quote(path, safe="/" + _UNRESERVED)
        arguments = "&".join(
            f"{urllib.parse.quote(name, safe=_UNRESERVED)}="
            f"{urllib.parse.quote(str(value), safe=_UNRESERVED)}"
            for name, value in sorted((query or {}).items())
        )
        signed = self._sign(method, quoted, arguments, body, headers or {})
        try:
            connection.request(
                method, quoted + ("?" + arguments if arguments else ""), body, signed
            )
            answer = connection.getresponse()
            content = answer.read()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, content
        finally:
            connection.close()

    def _sign(self, method, path, arguments, body, headers):
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        payload = hashlib.sha256(body).hexdigest()
        headers = {name.lower(): str(value) for name, value in headers.items()}
        headers["host"] = self.host
        headers["x-amz-date"] = stamp
        headers["x-amz-content-sha256"] = payload
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join([method, path, arguments, lines, names, payload])
        to_sign = "\n".join(
            [
                "AWS4-HMAC-SHA256",
                stamp,
                scope,
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        key = b"AWS4" + self._secret_key.encode()
        for part in (*scope.split("/"), to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={key.hex()}"
        )
        return headers

    def call(self, method, path, query=None, body=b"", headers=None):
        """request(), with an S3Error for every answer other than 2xx."""
        status, names, content = self.request(method, path, query, body, headers)
        if not 200 <= status < 300:
            code = re.search(rb"<Code>([^<]*)</Code>", content)
            raise S3Error(status, code[1].decode() if code else "", content)
        return names, content

    def create_bucket(self, name):
        """Makes a bucket and gives a handle of it."""
        self.call("PUT", "/" + name)
        return S3Bucket(self, name)


class S3Bucket:
    """The objects of one bucket, each named by its whole key."""

    def __init__(self, client, name):
        self.client = client
        self.name = name

    def _path(self, key):
        return f"/{self.name}/{key}"

    def put(self, key, data, headers=None):
        """Stores an object and returns its ETag."""
        return self.client.call("PUT", self._path(key), None, data, headers)[0]["etag"]

    def get(self, key, first=None, last=None):
        """An object's bytes, or those from `first` to `last` inclusive."""
        headers = {} if first is None else {"range": f"bytes={first}-{last}"}
        return self.client.call("GET", self._path(key), headers=headers)[1]

    def head(self, key):
        """An object's headers, None if it does not exist."""
        status, headers, _ = self.client.request("HEAD", self._path(key))
        if status == 404:
            return None
        if status != 200:
            raise S3Error(status, "", b"")
        return headers

    def delete(self, key):
        """Deletes an object; one that does not exist is no error, as in S3."""
        self.client.call("DELETE", self._path(key))

    def list(self, prefix=""):
        """All objects below `prefix`, in the order of their keys."""
        objects = []
        query = {"list-type": 2, "prefix": prefix}
        while True:
            tree = ElementTree.fromstring(
                self.client.call("GET", f"/{self.name}", query)[1]
            )
            # Servers differ in whether they name the XML namespace.
            name_space = re.match(r"\{.*\}|", tree.tag)[0]

            def text(element, name):
                return element.findtext(name_space + name)

            for item in tree.iter(name_space + "Contents"):
                objects.append(
                    Object(
                        text(item, "Key"),
                        int(text(item, "Size")),
                        text(item, "ETag"),
                    )
                )
            if text(tree, "IsTruncated") != "true":
                return objects
            query["continuation-token"] = text(tree, "NextContinuationToken")

    def keys(self, prefix=""):
        """The keys below `prefix`, sorted."""
        return [item.key for item in self.list(prefix)]

    def uploads(self):
        """The keys of the multipart uploads that were begun and not ended."""
        body = self.client.call("GET", f"/{self.name}", {"uploads": ""})[1]
        return [key.decode() for key in re.findall(rb"<Key>([^<]*)</Key>", body)]
