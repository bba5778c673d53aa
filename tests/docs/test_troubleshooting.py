"""docs/how-to/troubleshooting.md explains every text of the kubelet stand-in, and names events that exist."""

import re
from pathlib import Path

import pytest
import yaml

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.observe.events import Event
from genplug.testing.kubelet import Allocation, ListedDevice, device_manager, names
from genplug.testing.kubelet.admission import admission_error
from genplug.testing.kubelet.device_manager import DeviceManager, DeviceManagerError, Request
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/how-to/troubleshooting.md").read_text()
HEALTHY, UNHEALTHY = ListedDevice(healthy=True, numa=()), ListedDevice(healthy=False, numa=())
HELD = Allocation("...", "...", "X", ("x0",), ((),), pb.ContainerAllocateResponse())


def manager(*allocations: Allocation, **devices: ListedDevice) -> DeviceManager:
    """Return a device manager that knows the resource ``X`` if it has devices."""
    made = DeviceManager()
    if devices:
        made.restore([], allocations, 0.0)
        made.set_list("X", devices.items())
    return made


def error_texts() -> list[str]:
    """Return each error of the device manager for a resource ``X``, in the wording of its methods."""
    cases = [
        (manager(x0=HEALTHY), 2),
        (manager(x0=UNHEALTHY), 1),
        (manager(HELD, x0=UNHEALTHY, x1=HEALTHY), 1),
        (manager(HELD, x0=HEALTHY), 2),
        (manager(), 1),
    ]
    texts = []
    for known, count in cases:
        with pytest.raises(DeviceManagerError) as raised:
            known.list_available(Request("...", "...", "X", count))
        texts.append(str(raised.value))
    return texts


@pytest.mark.parametrize("text", error_texts())
def test_page_explains_error_of_device_manager(text: str) -> None:
    assert f"`{text}`" in PAGE


def test_every_error_of_device_manager_is_tried() -> None:
    source = Path(device_manager.__file__).read_text()
    assert source.count("raise DeviceManagerError(") == len(error_texts())


def test_page_shows_form_of_rejection() -> None:
    assert f"`{admission_error(DeviceManagerError('CAUSE'), (1, 37))}`" in PAGE


def test_page_explains_registration_errors() -> None:
    assert f"`{names.registration_error('v1beta1', 'X')}`" in PAGE
    assert f"`{names.registration_error('...', 'a.io/x')}`" in PAGE


def test_alerts_on_page_exist() -> None:
    rules = yaml.safe_load((ROOT / "deploy/helm/genplug/files/rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    named = set(re.findall(r"\bGenplug\w+", PAGE))
    assert named
    assert named <= alerts


def test_events_on_page_exist() -> None:
    codes = {event.code for event in Event}
    table = PAGE.partition("## A resource is not registered")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE)) | {"allocation_refused"}
    assert named <= codes
