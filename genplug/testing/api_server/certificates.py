"""Certificates for the stand-in, by the program ``openssl``."""

import shutil
import ssl
import subprocess
from pathlib import Path

_DAYS = "3650"


def create_certificates(directory: Path, names: tuple[str, ...]) -> None:
    """Write the certificate of a certificate authority (CA) and that of a server with names and IP addresses.

    The files are ``ca.crt``, ``server.crt`` and ``server.key``. Like the CAs of many clusters, the CA has no key
    identifiers.

    Raises:
        RuntimeError: the program ``openssl`` is not installed, or fails.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("expected the program openssl, which makes certificates: install openssl, or use tls=False")
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    (directory / "openssl.cnf").write_text(
        "[req]\ndistinguished_name = name\n[name]\n"
        "[ca]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n"
        "subjectKeyIdentifier = none\nauthorityKeyIdentifier = none\n"
        f"[server]\nsubjectAltName = {alternatives}\nextendedKeyUsage = serverAuth\n"
        "subjectKeyIdentifier = none\nauthorityKeyIdentifier = none\n"
    )
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    days = ("-days", _DAYS)
    common = ("-config", "openssl.cnf", *days)
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    extensions = ("-extfile", "openssl.cnf", "-extensions", "server")
    for command in (
        ["req", "-x509", *common, *key, "-extensions", "ca", "-subj", "/CN=kubernetes", *_files("ca.key", "ca.crt")],
        ["req", "-new", *common[:2], *key, "-subj", "/CN=kube-apiserver", *_files("server.key", "server.csr")],
        ["x509", "-req", "-in", "server.csr", *signer, *days, *extensions, "-out", "server.crt"],
    ):
        done = subprocess.run(  # noqa: S603 - the arguments come from this function
            [openssl, *command], cwd=directory, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"openssl {command[0]} failed: {done.stderr.strip()}")


def build_server_context(directory: Path) -> ssl.SSLContext:
    """Return the TLS settings of a server with the certificate in a directory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


def _files(key: str, output: str) -> tuple[str, ...]:
    return "-keyout", key, "-out", output
