"""Facts for the driver of Dynamic Resource Allocation, with real directories."""

from pathlib import Path

import pytest

from genplug.agent import Settings
from genplug.doctor.configuration import read_configuration
from genplug.doctor.driver import read_driver
from genplug.doctor.facts import Machine
from genplug.hardware.hung_paths import HungPaths
from tests.support.configs import CONFIG_HEADER


def build_machine(directory: Path, **settings: object) -> Machine:
    """Return a machine whose kubelet and whose root are in a directory; it has the directories of a kubelet."""
    kubelet = directory / "kubelet"
    for name in ("plugins_registry", "plugins"):
        (kubelet / name).mkdir(parents=True, exist_ok=True)
    (directory / "root/var/run").mkdir(parents=True, exist_ok=True)
    (directory / "account").mkdir(exist_ok=True)
    fixed = {"root": directory / "root", "kubelet_dir": kubelet, "account_dir": directory / "account"}
    return Machine(Settings(**({"config": ()} | fixed | settings)))  # type: ignore[arg-type]  # the values have the types of the fields


def test_directories_that_can_be_created_are_no_error(tmp_path: Path) -> None:
    machine = build_machine(tmp_path)
    assert read_driver(machine).directory_errors == ()
    assert not (tmp_path / "kubelet/plugins/genplug.io").exists()
    assert not (tmp_path / "root/var/run/cdi").exists()


@pytest.mark.parametrize("name", ["kubelet/plugins_registry", "kubelet/plugins/d.example", "root/var/run/cdi"])
def test_file_in_the_place_of_a_directory_is_an_error(name: str, tmp_path: Path) -> None:
    machine = build_machine(tmp_path, dra_driver="d.example")
    path = tmp_path / name
    if path.exists():
        path.rmdir()
    path.touch()
    assert read_driver(machine).directory_errors == (f"{path} is not a directory",)


def test_missing_directory_of_the_kubelet_is_an_error(tmp_path: Path) -> None:
    machine = build_machine(tmp_path)
    (tmp_path / "kubelet/plugins_registry").rmdir()
    assert read_driver(machine).directory_errors == (f"{tmp_path}/kubelet/plugins_registry does not exist",)


def test_account_needs_an_address_a_token_and_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = build_machine(tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "KUBERNETES_SERVICE_HOST" in read_driver(machine).account_error
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert "account/token" in read_driver(machine).account_error
    (tmp_path / "account/token").write_text("a.b.c")
    (tmp_path / "account/ca.crt").write_text("certificate")
    assert read_driver(machine).account_error == ""


@pytest.mark.parametrize(("serve", "expected"), [("dra", True), ("devicePlugin", False)])
def test_resource_that_dra_serves_needs_a_driver_and_cdi(serve: str, expected: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    path = tmp_path / "genplug.yaml"
    path.write_text(f"{CONFIG_HEADER}resources:\n  a.io/x: {{serve: {serve}, devices: [{{glob: /dev/x*}}]}}\n")
    needs = read_configuration(build_machine(tmp_path, config=(path,)), HungPaths()).needs
    assert (needs.dra, needs.cdi, needs.cdi_files) == (expected, expected, expected)
