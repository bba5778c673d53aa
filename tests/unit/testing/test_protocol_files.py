"""The committed protocol modules: their .proto files, their wire format, and the required version of protobuf."""

import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api import genplug_dra_v1_pb2 as dra
from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration
from genplug.kubelet.api import genplug_podresources_v1_pb2 as pods
from genplug.kubelet.api import regenerate, services

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.generator
def test_generated_modules_match_their_proto_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert regenerate.main(["--check"]) == 0, capsys.readouterr().out


def test_module_is_current_with_another_generator_version_but_not_with_a_change() -> None:
    path = regenerate.HERE / "genplug_podresources_v1_pb2.py"
    content = path.read_bytes()
    newer = re.sub(rb"Version: \S+", b"Version: 9.1.2", content).replace(
        b"    6,\n    31,\n    1,\n", b"    9,\n    1,\n    2,\n"
    )
    assert newer.count(b"9") >= content.count(b"9") + 2
    assert regenerate.is_current(path, newer)
    assert not regenerate.is_current(path, content.replace(b"PodResources", b"PodResource"))


def test_project_requires_a_protobuf_that_accepts_the_modules() -> None:
    dependencies = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    [floor] = [entry.removeprefix("protobuf>=") for entry in dependencies if entry.startswith("protobuf>=")]
    assert tuple(map(int, floor.split("."))) >= regenerate.protobuf_floor()


def test_messages_have_the_wire_format_of_the_kubelet() -> None:
    # Written from the field numbers: the tag (number << 3 | 2), the length, and the content.
    listed = b"\x0a\x10\x0a\x01a\x12\x07Healthy\x1a\x02\x0a\x00"
    assert pb.ListAndWatchResponse.FromString(listed) == pb.ListAndWatchResponse(
        devices=[pb.Device(ID="a", health="Healthy", topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=0)]))]
    )
    response = b"\x0a\x15\x12\x04\x0a\x02/m\x1a\x06\x12\x04/dev\x2a\x05\x0a\x03v=d"
    parsed = pb.AllocateResponse.FromString(response).container_responses[0]
    assert (parsed.mounts[0].container_path, parsed.devices[0].host_path) == ("/m", "/dev")
    assert parsed.cdi_devices[0].name == "v=d"


def test_dra_messages_have_the_wire_format_of_the_kubelet() -> None:
    request = b"\x0a\x0a\x0a\x02ns\x12\x01u\x1a\x01c"
    assert dra.NodePrepareResourcesRequest.FromString(request) == dra.NodePrepareResourcesRequest(
        claims=[dra.Claim(namespace="ns", uid="u", name="c")]
    )
    response = b"\x0a\x1b\x0a\x01u\x12\x16\x0a\x11\x0a\x01r\x12\x01p\x1a\x01d\x22\x03v=d\x2a\x01s\x12\x01e"
    [(uid, result)] = dra.NodePrepareResourcesResponse.FromString(response).claims.items()
    device = dra.Device(request_names=["r"], pool_name="p", device_name="d", cdi_device_ids=["v=d"], share_id="s")
    assert (uid, result) == ("u", dra.NodePrepareResourceResponse(devices=[device], error="e"))
    unprepared = dra.NodeUnprepareResourcesResponse.FromString(b"\x0a\x08\x0a\x01u\x12\x03\x0a\x01e")
    assert unprepared.claims["u"].error == "e"


def test_registration_messages_have_the_wire_format_of_the_kubelet() -> None:
    info = registration.PluginInfo.FromString(b"\x0a\x01t\x12\x01n\x1a\x02/e\x22\x01v\x22\x01w")
    assert info == registration.PluginInfo(type="t", name="n", endpoint="/e", supported_versions=["v", "w"])
    status = registration.RegistrationStatus.FromString(b"\x08\x01\x12\x01e")
    assert (status.plugin_registered, status.error) == (True, "e")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (pb, {services.REGISTRATION, services.DEVICE_PLUGIN}),
        (pods, {services.POD_RESOURCES}),
        (dra, {services.DRA_PLUGIN}),
        (registration, {services.PLUGIN_REGISTRATION}),
    ],
)
def test_services_have_the_names_of_the_proto_files(module: ModuleType, names: set[str]) -> None:
    assert {service.full_name for service in module.DESCRIPTOR.services_by_name.values()} == names
    assert module.DESCRIPTOR.name.startswith("genplug/kubelet/api/genplug_")


def test_method_path_contains_service_and_method() -> None:
    assert services.method_path(services.DEVICE_PLUGIN, "Allocate") == "/v1beta1.DevicePlugin/Allocate"
