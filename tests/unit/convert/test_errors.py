"""Files that are not valid for their format: errors with a location, and never another exception."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.load import load_text
from genplug.convert.formats import FORMATS, convert_text
from genplug.convert.yaml_writer import format_conversion
from genplug.spec.diagnostic import ErrorCode
from tests.support.configs import collect_diagnostics
from tests.unit.convert.test_fixtures import KEYS, load_conversion

_NONE = "found no configuration of the SR-IOV network device plugin in the file"
INVALID = {
    "wrong type in generic-device-plugin": (
        "generic-device-plugin",
        "devices:\n- name: a1\n  groups: {paths: []}\n",
        ("a.yaml:3:11", ErrorCode.WRONG_TYPE, "expected a list of mappings, found a mapping"),
    ),
    "paths and usb": (
        "generic-device-plugin",
        "name: a1\ngroups:\n- paths: [{path: /dev/x}]\n  usb: [{vendor: '1a86', product: '7523'}]\n",
        ("a.yaml:4:3", ErrorCode.CONFLICT, "expected either 'paths' or 'usb' in a group, found both"),
    ),
    "value of --device in a workload": (
        "generic-device-plugin",
        (
            "kind: DaemonSet\napiVersion: apps/v1\nspec:\n  containers:\n  - image: generic-device-plugin\n"
            "    args:\n    - --device\n    - |\n      name: a\n      groups: []\n"
        ),
        ("a.yaml:9:7", ErrorCode.WRONG_VALUE, "expected a name of generic-device-plugin, found 'a'"),
    ),
    "text in a ConfigMap": (
        "smarter",
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  conf.yaml: |\n    - devicematch: ^x$\n      nummaxdevices: many\n",
        ("a.yaml:6:22", ErrorCode.WRONG_TYPE, "expected a whole number, found a string"),
    ),
    "rdma-shared without selectors": (
        "rdma-shared",
        '{"configList": [{"resourceName": "a", "rdmaHcaMax": 3}]}',
        ("a.yaml:1:17", ErrorCode.MISSING_KEY, "expected 'selectors' or 'devices', found neither"),
    ),
    "range of functions": (
        "sriov",
        '{"resourceList": [{"resourceName": "a", "selectors": [{"pfNames": ["p#5-2"]}]}]}',
        ("a.yaml:1:56", ErrorCode.WRONG_VALUE, "expected numbers and ranges of functions after '#', found 'p#5-2'"),
    ),
    "one replica": (
        "nvidia",
        "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 1}]}}\n",
        ("a.yaml:2:60", ErrorCode.WRONG_VALUE, "expected at least 2 replicas, found 1"),
    ),
    "driver of QAT": (
        "intel",
        "apiVersion: deviceplugin.intel.com/v1\nkind: QatDevicePlugin\nspec: {dpdkDriver: uio}\n",
        ("a.yaml:3:8", ErrorCode.WRONG_VALUE, "expected vfio-pci or igb_uio, found 'uio'"),
    ),
    "rule of udev": (
        "akri",
        (
            "apiVersion: akri.sh/v0\nkind: Configuration\nmetadata: {name: a}\nspec:\n  discoveryHandler:\n"
            "    name: udev\n"
            '    discoveryDetails: |\n      udevRules:\n      - \'KERNEL=="video0", SYMLINK=="x"\'\n'
        ),
        ("a.yaml:9:28", ErrorCode.WRONG_VALUE, "expected a field that Akri supports, found 'SYMLINK'"),
    ),
    "selector of KubeVirt": (
        "kubevirt",
        "permittedHostDevices:\n  pciHostDevices:\n  - {pciVendorSelector: 10de, resourceName: a.b/c}\n",
        ("a.yaml:3:6", ErrorCode.WRONG_VALUE, "expected VENDOR:DEVICE in hexadecimal, found '10de'"),
    ),
    "another format": (
        "sriov",
        '{"configList": []}',
        (
            "a.yaml:1:1",
            ErrorCode.NO_RESOURCES,
            _NONE,
        ),
    ),
    "unknown format": (
        None,
        "a: 1\n",
        ("a.yaml:1:1", ErrorCode.WRONG_VERSION, "the format of the file is not recognized"),
    ),
    "template of a chart": (
        None,
        "data:\n  conf.yaml: |\n{{ toYaml .Values.config | indent 4 }}\n",
        (
            "a.yaml:1:1",
            ErrorCode.WRONG_VERSION,
            "expected a configuration of another device plugin, found a template of a Helm chart",
        ),
    ),
    "broken YAML": (None, "a: [1\n", ("a.yaml:1:4", ErrorCode.SYNTAX, None)),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_file_is_an_error_with_its_location(case: str) -> None:
    plugin, text, (location, code, message) = INVALID[case]
    (first, *_) = collect_diagnostics(lambda: convert_text(text, "a.yaml", plugin))
    assert (str(first.location), first.code) == (location, code)
    assert message is None or first.message == message


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("name: dup\ngroups: [{paths: [{path: dev/x}]}]\n", "squat.ai/dup"),
        ("domain: a..b\ndevices: [{name: a1, groups: [{paths: [{path: /dev/x}]}]}]\n", "a..b/a1"),
        (
            "- {name: a1, groups: [{paths: [{path: /dev/x}]}]}\n- {name: a1, groups: [{paths: [{path: /dev/y}]}]}\n",
            "",
        ),
    ],
)
def test_resource_that_genplug_does_not_accept_is_left_out_with_the_reason(text: str, left_out: str) -> None:
    conversion = convert_text(text, "a.yaml", "generic-device-plugin")
    assert left_out not in conversion.resources
    assert any("is left out" in remark.message for remark in conversion.remarks)
    load_conversion(conversion)


def values_for(plugin: str) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(
        [*KEYS[plugin].split(), "kind", "apiVersion", "spec", "metadata", "args", "containers", "data"]
    )
    texts = st.sampled_from(
        [
            "",
            "/dev/x*",
            "^a$",
            "(",
            "${x}",
            "p#1-2",
            "10de:1eb8",
            'KERNEL=="a*"',
            'ATTR{x}!="("',
            "-5",
            "0x1",
            "{a: [",
            "\x07",
            "udev",
            "akri.sh/v0",
            "Configuration",
            "deviceplugin.intel.com/v1",
            "GpuDevicePlugin",
            "ConfigMap",
            "Mount",
        ]
    )
    scalars = (
        st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | texts | st.text(max_size=8)
    )
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


ROOTS: dict[str, Callable[[Any], Any]] = {
    "generic-device-plugin": lambda value: {"devices": [value, {"name": "ok", "groups": [value, {"paths": [value]}]}]},
    "smarter": lambda value: [value, {"devicematch": value, "nummaxdevices": value}],
    "rdma-shared": lambda value: {"configList": [value, {"resourceName": "a", "selectors": value, "rdmaHcaMax": 1}]},
    "sriov": lambda value: {"resourceList": [value, {"resourceName": "a", "selectors": [value]}]},
    "nvidia": lambda value: {"version": "v1", "flags": value, "sharing": {"timeSlicing": value}},
    "intel": lambda value: {"apiVersion": "deviceplugin.intel.com/v1", "kind": "GpuDevicePlugin", "spec": value},
    "akri": lambda value: {
        "apiVersion": "akri.sh/v0",
        "kind": "Configuration",
        "metadata": {"name": value},
        "spec": {
            "capacity": 2,
            "discoveryHandler": {"name": "udev", "discoveryDetails": json.dumps({"udevRules": value})},
            "brokerProperties": value,
        },
    },
    "kubevirt": lambda value: {
        "permittedHostDevices": {"pciHostDevices": value, "usb": value, "mediatedDevices": value}
    },
}


@pytest.mark.parametrize("plugin", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_structure_is_a_valid_conversion_or_an_error(plugin: str, data: st.DataObject) -> None:
    value = data.draw(values_for(plugin))
    for document in (value, ROOTS[plugin](value)):
        try:
            conversion = convert_text(json.dumps(document), "a.json", plugin)
        except ConfigInvalidError:
            continue
        load_conversion(conversion)


def test_remark_with_control_characters_is_one_comment() -> None:
    text = json.dumps({"devices": [{"name": "a1", "a\nb: c\x1b[2J": 1, "groups": [{"paths": [{"path": "/dev/x"}]}]}]})
    printed = format_conversion(convert_text(text, "a\nb.json", "generic-device-plugin"))
    assert list(load_text(printed, "a.yaml").resources) == ["squat.ai/a1"]
    assert "\x1b" not in printed
