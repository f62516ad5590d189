"""A certificate authority for one test run."""

import subprocess


def _openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_authority(directory, name):
    """A CA in directory/name.crt and name.key."""
    _openssl(
        *("req", "-x509", *_KEY, "-days", 2, "-subj", f"/CN=hibfs test {name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"),
    )
    return directory / f"{name}.crt"


def make_server(directory, authority):
    """directory/server.pem: key and certificate for localhost and 127.0.0.1."""
    request = directory / "server.csr"
    key = directory / "server.key"
    extensions = directory / "server.ext"
    extensions.write_text(
        "subjectAltName = DNS:localhost,IP:127.0.0.1\n"
        "subjectKeyIdentifier = hash\n"
        "authorityKeyIdentifier = keyid\n"
    )
    _openssl("req", *_KEY, "-subj", "/CN=localhost", "-keyout", key, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-days", 2, "-extfile", extensions),
        *("-CA", authority, "-CAkey", authority.with_suffix(".key")),
        *("-CAcreateserial", "-out", directory / "server.crt"),
    )
    pem = directory / "server.pem"
    pem.write_bytes(key.read_bytes() + (directory / "server.crt").read_bytes())
    return pem
