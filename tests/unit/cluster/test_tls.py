"""Requests over TLS: which servers are accepted, and TLS in a process that imports asyncio without OpenSSL."""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from genplug.cluster import stream
from genplug.cluster.account import Account, Credentials
from genplug.cluster.errors import NotConnectedError, UnreachableError
from genplug.cluster.http import HttpClient
from genplug.cluster.stream import Connector, build_context
from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.api_server.certificates import build_server_context, create_certificates
from tests.support.api_server import build_account, build_document, connect, list_slices
from tests.unit.cluster.test_http import WATCH

pytestmark = pytest.mark.openssl


async def test_request_and_watch_over_tls(api_server: ApiServerStandIn, tmp_path: Path) -> None:
    http = connect(api_server, tmp_path)
    document = build_document(64)
    for number in range(20):
        document["metadata"]["name"] = f"slice-{number}"
        api_server.put_slice(document)
    assert len((await http.request(list_slices()))["items"]) == 20
    async with http.watch(WATCH, 60) as events:
        assert [(await anext(events))["type"] for _ in range(20)] == ["ADDED"] * 20
        api_server.delete_slice("slice-3")
        assert (await anext(events))["type"] == "DELETED"
        api_server.end_watches()
        assert [event["type"] async for event in events] == ["BOOKMARK"]
    assert api_server.accepted == 2
    http.close()


@pytest.mark.ipv6
async def test_server_with_an_ipv6_address(tmp_path: Path) -> None:
    async with ApiServerStandIn(host="::1") as server:
        assert server.url == f"https://[::1]:{server.port}"
        assert (await connect(server, tmp_path).request(list_slices()))["items"] == []


async def test_server_with_the_certificate_of_another_authority_is_refused(
    api_server: ApiServerStandIn, tmp_path: Path
) -> None:
    async with ApiServerStandIn() as other:
        other.write_account(tmp_path)
        (tmp_path / "token").write_text(api_server.token)
        http = HttpClient(Account(api_server.environment, tmp_path), "test")
        with pytest.raises(UnreachableError, match=r"its certificate cannot be verified: .*; check ca\.crt") as refused:
            await http.request(list_slices())
        assert not isinstance(refused.value, NotConnectedError)
    assert api_server.requests == ()


async def test_server_whose_certificate_has_another_name_is_refused(tmp_path: Path) -> None:
    async with ApiServerStandIn(names=["kubernetes.default.svc"]) as server:
        with pytest.raises(UnreachableError, match="IP address mismatch"):
            await connect(server, tmp_path).request(list_slices())


async def test_server_that_does_not_respond_is_unreachable(
    api_server: ApiServerStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CONNECT_SECONDS", 0.05)
    api_server.write_account(tmp_path)
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    environment = api_server.environment | {"KUBERNETES_SERVICE_PORT": str(server.sockets[0].getsockname()[1])}
    with pytest.raises(NotConnectedError, match=r"no connection within 0\.05 s"):
        await HttpClient(Account(environment, tmp_path), "test").request(list_slices())
    server.close()


async def test_server_without_tls_is_refused(tmp_path: Path, api_server: ApiServerStandIn) -> None:
    api_server.write_account(tmp_path)
    async with ApiServerStandIn(tls=False) as plain:
        with pytest.raises(UnreachableError, match="cannot connect to the API server"):
            await HttpClient(Account(plain.environment, tmp_path), "test").request(list_slices())


def test_authority_without_key_identifiers_is_accepted_by_every_python(
    api_server: ApiServerStandIn, tmp_path: Path
) -> None:
    account = build_account(api_server, tmp_path)
    context = build_context(account.read().certificates)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_file_without_a_certificate_is_an_error(api_server: ApiServerStandIn, tmp_path: Path) -> None:
    account = build_account(api_server, tmp_path)
    (tmp_path / "ca.crt").write_text("text")
    with pytest.raises(UnreachableError, match="cannot connect to the API server"):
        await HttpClient(account, "test").request(list_slices())


async def test_certificates_with_a_comment_that_is_not_ascii_are_used(
    api_server: ApiServerStandIn, tmp_path: Path
) -> None:
    account = build_account(api_server, tmp_path)
    certificates = (tmp_path / "ca.crt").read_text()
    (tmp_path / "ca.crt").write_text(f"# Autorit\u00e9\n{certificates}", encoding="utf-8")
    assert (await HttpClient(account, "test").request(list_slices()))["items"] == []


@pytest.mark.parametrize(
    ("host", "certificates"), [("127.0.0.1", "certificate \u00e9"), (f"{'a' * 70}.example.com", "certificates")]
)
async def test_text_that_openssl_or_the_resolver_cannot_use_is_an_error(
    api_server: ApiServerStandIn, host: str, certificates: str
) -> None:
    with pytest.raises(UnreachableError, match="cannot connect to the API server"):
        await Connector().connect(Credentials(host, api_server.port, "token", certificates))


async def test_intermediate_authority_without_its_root_is_accepted(tmp_path: Path) -> None:
    create_certificates(tmp_path, ("127.0.0.1",))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key")
    signer = ("-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial")
    for command in (
        ("req", "-x509", *key, "-config", "openssl.cnf", "-extensions", "ca", "-subj", "/CN=root", "-out", "root.crt"),
        ("x509", "-in", "ca.crt", *signer, "-out", "intermediate.crt"),
    ):
        subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)  # noqa: ASYNC221
    certificates = (tmp_path / "intermediate.crt").read_text()
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0, ssl=build_server_context(tmp_path))
    port = server.sockets[0].getsockname()[1]
    connected = await Connector().connect(Credentials("127.0.0.1", port, "token", certificates))
    connected.close()
    server.close()


SCRIPT = """
import sys
from genplug.cli.run import import_serving
import_serving()
import asyncio, pathlib
assert not {"h11", "ssl", "genplug.cluster"} & set(sys.modules), "imported without a resource of DRA"
from genplug.cluster.account import Account
from genplug.cluster.http import HttpClient, Request

async def main():
    http = HttpClient(Account(directory=pathlib.Path(sys.argv[1])), "test")
    print(await http.request(Request("list", "resourceslices", "GET", "/apis/resource.k8s.io/v1/resourceslices")))

asyncio.run(main())
"""


async def test_agent_that_imports_asyncio_without_tls_connects(api_server: ApiServerStandIn, tmp_path: Path) -> None:
    api_server.write_account(tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        str(tmp_path),
        env=api_server.environment | {"PYTHONPATH": ":".join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "'ResourceSliceList'" in output.decode()
