"""The credentials of a pod."""

import os
from pathlib import Path

import pytest

from genplug.cluster.account import Account, AccountError

ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("certificates")
    return tmp_path


def test_credentials_are_those_of_environment_and_files(directory: Path) -> None:
    credentials = Account(ENVIRONMENT, directory).read()
    assert (credentials.host, credentials.port) == ("10.0.0.1", 443)
    assert (credentials.token, credentials.certificates) == ("first", "certificates")


@pytest.mark.parametrize(("host", "authority"), [("10.0.0.1", "10.0.0.1:443"), ("fd00::1", "[fd00::1]:443")])
def test_authority_has_an_ipv6_address_in_brackets(directory: Path, host: str, authority: str) -> None:
    account = Account(ENVIRONMENT | {"KUBERNETES_SERVICE_HOST": host}, directory)
    assert account.read().authority == authority


def test_replaced_token_is_read_again(directory: Path) -> None:
    account = Account(ENVIRONMENT, directory)
    assert account.read().token == "first"
    (directory / "new").write_text("second")
    (directory / "new").replace(directory / "token")
    assert account.read().token == "second"


def test_token_that_was_refused_is_read_again_despite_an_equal_state(directory: Path) -> None:
    account = Account(ENVIRONMENT, directory)
    status = (directory / "token").stat()
    account.read()
    (directory / "token").write_text("other\n")
    os.utime(directory / "token", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert account.read().token == "first"
    account.forget()
    assert account.read().token == "other"


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1"])
def test_invalid_address_names_both_variables(directory: Path, port: str) -> None:
    with pytest.raises(AccountError, match="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT") as failed:
        Account(ENVIRONMENT | {"KUBERNETES_SERVICE_PORT": port}, directory).read()
    assert "run the agent in a pod" in str(failed.value)


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_missing_file_names_the_file_and_the_key_of_the_pod(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(AccountError, match="No such file or directory: set automountServiceAccountToken") as failed:
        Account(ENVIRONMENT, directory).read()
    assert str(directory / name) in str(failed.value)


@pytest.mark.parametrize("content", ["", "\n \n", "\N{BULLET}"])
def test_file_without_certificates_is_an_error_and_never_plain_http(directory: Path, content: str) -> None:
    (directory / "ca.crt").write_text(content)
    with pytest.raises(AccountError, match=r"expected the certificates of the API server in .*ca\.crt") as failed:
        Account(ENVIRONMENT, directory).read()
    assert "set automountServiceAccountToken" in str(failed.value)


def test_comment_that_is_not_ascii_is_left_out_of_the_certificates(directory: Path) -> None:
    (directory / "ca.crt").write_text("# Zertifizierungsstelle f\u00fcr Tests\ncertificates", encoding="utf-8")
    assert Account(ENVIRONMENT, directory).read().certificates == "# Zertifizierungsstelle fr Tests\ncertificates"


@pytest.mark.parametrize("token", ["", "two words", "a\r\nInjected: header", "\N{BULLET}"])
def test_token_that_is_not_a_header_field_is_an_error(directory: Path, token: str) -> None:
    (directory / "token").write_text(token)
    with pytest.raises(AccountError, match="expected a token"):
        Account(ENVIRONMENT, directory).read()


def test_large_file_is_an_error(directory: Path) -> None:
    (directory / "token").write_text("x" * 70_000)
    with pytest.raises(AccountError, match="at most 65536 bytes"):
        Account(ENVIRONMENT, directory).read()
