"""``genplug plan`` of resources that Dynamic Resource Allocation serves."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from genplug.allocation.device_class import device_class_name
from genplug.cli.main import main
from genplug.testing.node.file_trees import build_tree
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
TREE = """
/dev/accel0 char 261:0
/dev/accel1 char 261:1
/dev/accel2 char 261:2
/dev/serial0 char 188:0
/sys/dev/char/261:0 -> ../../devices/pci0000:3a/0000:3b:00.0/accel/accel0
/sys/dev/char/261:1 -> ../../devices/pci0000:ae/0000:af:00.0/accel/accel1
/sys/dev/char/261:2 -> ../../devices/pci0000:ae/0000:b0:00.0/accel/accel2
/sys/devices/pci0000:3a/0000:3b:00.0/numa_node = 0
/sys/devices/pci0000:3a/0000:3b:00.0/model = A 100
/sys/devices/pci0000:3a/0000:3b:00.0/mem_total = 17179869184
/sys/devices/pci0000:3a/0000:3b:00.0/fw_version = 2.1.0
/sys/devices/pci0000:3a/0000:3b:00.0/accel/accel0/dev = 261:0
/sys/devices/pci0000:ae/0000:af:00.0/numa_node = 1
/sys/devices/pci0000:ae/0000:af:00.0/mem_total = 17179869184
/sys/devices/pci0000:ae/0000:af:00.0/fw_version = 2.1.0
/sys/devices/pci0000:ae/0000:af:00.0/accel/accel1/dev = 261:1
/sys/devices/pci0000:ae/0000:b0:00.0/numa_node = 1
/sys/devices/pci0000:ae/0000:b0:00.0/fw_version = 2.1
/sys/devices/pci0000:ae/0000:b0:00.0/accel/accel2/dev = 261:2
"""
CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  vendor.example/accelerator:
    serve: dra
    replicas: 2
    aliases: [old.example/Accelerator_v1]
    devices: [{glob: /dev/accel*}]
    publish:
      attributes:
        model: "${attr.model|default:unknown}"
        firmware: {version: "${attr.fw_version}"}
        ports: {int: 4}
        removable: {bool: N}
        k8s.cni.cncf.io/deviceID: {string: "${pci.address}", optional: true}
      capacity: {memory: "${attr.mem_total}"}
    preStart: {exec: {command: [/opt/reset, "${pci.address}"]}}
  vendor.example/${name}:
    serve: dra
    devices: [{glob: /dev/none*}]
  vendor.example/serial:
    devices: [{glob: /dev/serial*}]
"""
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nexec: {allow: [/opt/reset]}\n"


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tree(TREE, tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    Path("genplug.yaml").write_text(CONFIG)
    Path("policy.yaml").write_text(POLICY)


def plan(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    arguments = ("--config", "genplug.yaml", "--policy", "policy.yaml", "--root", "root")
    assert main(["plan", *arguments, *flags]) == 0
    return capsys.readouterr().out


def test_table_shows_the_published_devices_and_the_reasons_for_others_dra_20(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_golden(GOLDEN / "plan-published.txt", plan(capsys))


def test_document_has_the_published_devices(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(plan(capsys, "-o", "json"))
    check_output(document)
    serves = {resource["name"]: (resource["serve"], resource["published"]) for resource in document["resources"]}
    assert serves["vendor.example/serial"] == ("devicePlugin", None)
    assert serves["vendor.example/${name}"] == ("dra", {"devices": [], "leftOut": [], "deviceClasses": []})
    serve, published = serves["vendor.example/accelerator"]
    assert serve == "dra"
    check_golden(GOLDEN / "plan-published.json", json.dumps(published, indent=2) + "\n")


def test_wide_table_shows_every_device_and_every_attribute(capsys: pytest.CaptureFixture[str]) -> None:
    published = plan(capsys, "-o", "wide").partition("published in ResourceSlices:")[2]
    for name in ("accel0-r0", "accel0-r1", "accel1-r0", "accel1-r1"):
        assert f"vendor.example/accelerator   {name}" in published
    assert 'device = "accel0"' in published
    assert 'resource = "vendor.example/accelerator"' in published


def test_printed_device_classes_are_manifests_that_select_the_resource(capsys: pytest.CaptureFixture[str]) -> None:
    manifests = plan(capsys).partition("DeviceClasses to create in the cluster:\n")[2]
    classes = list(yaml.safe_load_all(manifests))
    (published,) = (
        resource["published"]
        for resource in json.loads(plan(capsys, "-o", "json"))["resources"]
        if resource["name"] == "vendor.example/accelerator"
    )
    assert classes == published["deviceClasses"]
    assert [found["metadata"]["name"] for found in classes] == [
        "accelerator.vendor.example",
        "accelerator-v1.old.example",
    ]
    (expression,) = {found["spec"]["selectors"][0]["cel"]["expression"] for found in classes}
    assert expression == (
        'device.driver == "genplug.io" && device.attributes["genplug.io"].resource == "vendor.example/accelerator"'
    )


def test_tables_of_published_devices_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    lines = "".join(f"/dev/many{number} char 262:{number}\n" for number in range(30))
    build_tree(lines, Path("root"))
    Path("genplug.yaml").write_text(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
        "  a.io/x: {serve: dra, devices: [{glob: /dev/many*}], publish: {attributes: {minor: {int: '${minor}'}}}}\n"
    )
    assert "10 more devices" in plan(capsys)
    assert "more devices" not in plan(capsys, "-o", "wide")


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("vendor.example/thing", "thing.vendor.example"),
        ("vendor.example/Thing_V2", "thing-v2.vendor.example"),
        ("vendor.example/a.b-c", "a.b-c.vendor.example"),
        ("vendor.example/a_.b", "a.b.vendor.example"),
    ],
)
def test_device_class_has_the_name_of_the_resource_and_its_domain(resource: str, name: str) -> None:
    assert device_class_name(resource) == name


@pytest.mark.parametrize("is_imported", [True, False])
def test_modules_of_dynamic_resource_allocation_are_imported_for_its_resources_only(*, is_imported: bool) -> None:
    if not is_imported:
        header = CONFIG.partition("  vendor.example/accelerator")[0]
        Path("genplug.yaml").write_text(header + CONFIG[CONFIG.index("  vendor.example/serial") :])
    code = (
        "import sys; from genplug.cli.main import main;"
        "main(['plan', '--config', 'genplug.yaml', '--policy', 'policy.yaml', '--root', 'root']);"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split(
        "\n"
    )
    expected = {
        "genplug.config.decode.publish",
        "genplug.spec.published_values",
        "genplug.allocation.published",
        "genplug.allocation.device_class",
        "genplug.cli.plan_published",
        "fractions",
    }
    assert expected.intersection(modules) == (expected if is_imported else set())


def read_driver(document: Mapping[str, Any]) -> str:
    """Return the driver that the DeviceClass of the first resource selects."""
    [selector] = document["resources"][0]["published"]["deviceClasses"][0]["spec"]["selectors"]
    return str(re.findall(r'device\.driver == "(.*?)"', selector["cel"]["expression"])[0])


def test_option_selects_the_driver_of_device_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_driver(json.loads(plan(capsys, "-o", "json", "--dra-driver", "dra.example.com"))) == "dra.example.com"


def test_name_of_the_domain_of_the_driver_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("genplug.yaml").write_text(
        CONFIG.replace("        removable:", "        dra.example.com/kind: a\n        removable:")
    )
    arguments = ("--config", "genplug.yaml", "--policy", "policy.yaml", "--root", "root")
    assert main(["plan", *arguments]) == 0
    assert main(["plan", *arguments, "--dra-driver", "dra.example.com"]) == 78
    assert "names of the driver's domain 'dra.example.com' are" in capsys.readouterr().err


VALUES = """\
dra: {DRA}
config:
  resources:
    vendor.example/accelerator: {serve: dra, devices: [{glob: /dev/accel*}], publish: {attributes: {NAME: a}}}
"""


def plan_values(capsys: pytest.CaptureFixture[str], dra: str, *flags: str) -> Mapping[str, Any]:
    Path("values.yaml").write_text(VALUES.replace("{DRA}", dra).replace("NAME", "kind"))
    assert main(["plan", "--values", "values.yaml", "--root", "root", "-o", "json", *flags]) == 0
    return cast("Mapping[str, Any]", json.loads(capsys.readouterr().out))


def test_plan_of_values_has_the_driver_of_the_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENPLUG_DRA_DRIVER", "env.example")
    assert read_driver(plan_values(capsys, "{driverName: values.example}")) == "values.example"
    assert read_driver(plan_values(capsys, "{}")) == "genplug.io"
    flags = ("--dra-driver", "option.example")
    assert read_driver(plan_values(capsys, "{driverName: values.example}", *flags)) == "option.example"


def test_values_that_disable_the_driver_have_no_plan_of_its_resources(capsys: pytest.CaptureFixture[str]) -> None:
    Path("values.yaml").write_text(VALUES.replace("{DRA}", "{enabled: never}").replace("NAME", "kind"))
    assert main(["plan", "--values", "values.yaml", "--root", "root"]) == 78
    assert "set 'dra.enabled: auto' in the values" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["validate"], ["plan", "--root", "root"]])
def test_name_of_the_domain_of_the_driver_of_the_values_is_refused(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    text = VALUES.replace("{DRA}", "{driverName: values.example}").replace("NAME", "values.example/kind")
    Path("values.yaml").write_text(text)
    assert main([*command, "--values", "values.yaml"]) == 78
    error = capsys.readouterr().err
    assert "values.yaml:4:" in error
    assert "names of the driver's domain 'values.example' are written" in error
