"""The two kinds of store, with one face: a test looks at objects in either.

Keys here are relative to what the store's URL names.
"""

import os
from pathlib import Path


class FileStore:
    """file:///directory"""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.url = f"file://{directory}"
        self.options = []
        self.env = {}

    def keys(self, prefix=""):
        """The keys that begin with `prefix`, sorted."""
        found = []
        for folder, _, names in os.walk(self.directory):
            for name in names:
                path = os.path.join(folder, name)
                found.append(os.path.relpath(path, self.directory))
        return sorted(key for key in found if key.startswith(prefix))

    def get(self, key):
        """An object's bytes."""
        return (self.directory / key).read_bytes()

    def put(self, key, data):
        """Replaces or makes an object."""
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key):
        """Removes an object."""
        (self.directory / key).unlink()


class S3Store:
    """s3://bucket/prefix on an Rgw, through a FaultProxy if there is one."""

    def __init__(self, rgw, bucket, prefix="a/prefix", endpoint=None):
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix else ""
        self.url = f"s3://{bucket.name}/{prefix}".rstrip("/")
        self.options = [f"s3_endpoint={endpoint or rgw.endpoint}", "s3_path_style"]
        self.env = rgw.env

    def keys(self, prefix=""):
        """The keys that begin with `prefix`, sorted."""
        skip = len(self.prefix)
        return sorted(key[skip:] for key in self.bucket.keys(self.prefix + prefix))

    def get(self, key):
        """An object's bytes."""
        return self.bucket.get(self.prefix + key)

    def put(self, key, data):
        """Replaces or makes an object."""
        self.bucket.put(self.prefix + key, data)

    def delete(self, key):
        """Removes an object."""
        self.bucket.delete(self.prefix + key)


def copy_store(source, target):
    """Copies every object: what an operator does who moves a store."""
    for key in source.keys():
        target.put(key, source.get(key))
