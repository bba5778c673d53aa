"""A configuration is found in files, ConfigMaps, arguments and variables of workloads, and custom resources."""

import json

import pytest

from genplug.config.diagnostics import Diagnostics
from genplug.convert.conversion import Kind
from genplug.convert.formats import convert_text
from genplug.convert.sources import read_source
from genplug.convert.udev_rules import RuleSyntaxError, parse_rule

SRIOV = {"resourceList": [{"resourceName": "net", "selectors": [{"vendors": ["8086"]}]}]}
RDMA = {"configList": [{"resourceName": "hca", "rdmaHcaMax": 2, "selectors": {"vendors": ["15b3"]}}]}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
CASES = {
    "list of objects": (
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [
                {"apiVersion": "v1", "kind": "Service"},
                CONFIG_MAP | {"data": {"config.json": json.dumps(SRIOV)}},
            ],
        },
        ("sriov", ["intel.com/net"]),
    ),
    "key of a ConfigMap without an extension": (
        CONFIG_MAP | {"data": {"worker-1": json.dumps(SRIOV), "note": "a: ["}},
        ("sriov", ["intel.com/net"]),
    ),
    "policy of the network operator": (
        {
            "apiVersion": "mellanox.com/v1alpha1",
            "kind": "NicClusterPolicy",
            "spec": {"rdmaSharedDevicePlugin": {"image": "x", "config": json.dumps(RDMA)}},
        },
        ("rdma-shared", ["rdma/hca"]),
    ),
    "values of NVIDIA's chart": (
        {"config": {"default": "a", "map": {"a": "version: v1\nflags: {migStrategy: none}\n"}}},
        ("nvidia", ["nvidia.com/gpu"]),
    ),
    "HyperConverged object": (
        {
            "apiVersion": "hco.kubevirt.io/v1beta1",
            "kind": "HyperConverged",
            "spec": {
                "permittedHostDevices": {
                    "pciHostDevices": [
                        {"pciDeviceSelector": "10DE:1DB6", "resourceName": "nvidia.com/GV100"},
                        {"pciDeviceSelector": "8086:1521", "resourceName": "intel.com/nic", "disabled": True},
                    ],
                    "usbHostDevices": [
                        {"resourceName": "kubevirt.io/key", "selectors": [{"vendor": "1050", "product": "0407"}]}
                    ],
                }
            },
        },
        ("kubevirt", ["nvidia.com/GV100", "kubevirt.io/key"]),
    ),
    "prefix in the arguments of the SR-IOV plugin": (
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "DaemonSet",
                    "spec": {"containers": [{"name": "s", "args": ["--use-cdi", "--resource-prefix=a.example"]}]},
                },
                CONFIG_MAP | {"data": {"config.json": json.dumps(SRIOV)}},
            ],
        },
        ("sriov", ["a.example/net"]),
    ),
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conf.yaml", "- devicematch: ^a\\{b$\n  nummaxdevices: 1\n"),
        ("devices.yaml", "devices:\n- name: xx\n  groups:\n  - paths:\n    - path: /dev/a{b\n"),
    ],
)
def test_brace_in_a_path_is_a_wildcard_for_a_character(name: str, text: str) -> None:
    (resource,) = convert_text(text, name).resources.values()
    assert resource["devices"] == [{"glob": "/dev/a?b"}]


@pytest.mark.parametrize("case", CASES)
def test_configuration_is_found(case: str) -> None:
    document, expected = CASES[case]
    conversion = convert_text(json.dumps(document), "a.json")
    assert (conversion.plugin, list(conversion.resources)) == expected


def test_options_and_variables_of_the_nvidia_plugin_are_a_configuration() -> None:
    text = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: nvidia}
spec:
  template:
    spec:
      containers:
      - image: nvcr.io/nvidia/k8s-device-plugin:v0.17.1
        args: [--device-list-strategy=cdi-cri, --fail-on-init-error, "false"]
        env:
        - {name: MIG_STRATEGY, value: none}
        - {name: DEVICE_ID_STRATEGY, value: uid}
"""
    with pytest.raises(Exception, match="expected uuid or index, found 'uid'"):
        convert_text(text, "a.yaml")
    conversion = convert_text(text.replace("uid", "uuid"), "a.yaml")
    allocate = conversion.resources["nvidia.com/gpu"]["allocate"]
    assert allocate["cdiDevices"] == ["nvidia.com/gpu=${uuid}"]
    assert conversion.policy is not None
    assert conversion.policy["cdi"] == {"allow": ["nvidia.com/gpu=GPU-*"]}


def test_configuration_of_several_pools_is_converted_once_with_a_remark() -> None:
    data = {"a.yaml": "version: v1\nflags: {}\n", "b.yaml": "version: v1\nsharing: {timeSlicing: {resources: []}}\n"}
    conversion = convert_text(json.dumps(CONFIG_MAP | {"data": data}), "a.json")
    (remark,) = [remark for remark in conversion.remarks if remark.kind is Kind.UNSUPPORTED]
    assert remark.message == "the file has several configurations; this one is left out"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--a=1", "-b=2"], [("a", "1"), ("b", "2")]),
        (["--a", "1", "x", "--b"], [("a", "1"), ("b", "true")]),
        (["-on", "-a", "1"], [("on", "true"), ("a", "1")]),
        (["--a", "--b", "2", "--c d"], [("a", "true"), ("b", "2")]),
    ],
)
def test_options_of_a_container_are_read_as_go_reads_them(words: list[str], expected: list[tuple[str, str]]) -> None:
    source = read_source(json.dumps({"containers": [{"args": words}]}), "a.json", Diagnostics())
    (program,) = source.programs
    assert [(option.name, option.text) for option in program.options(frozenset({"on"}))] == expected


@pytest.mark.parametrize(
    ("rule", "message", "offset"),
    [
        ("", "expected a rule", 0),
        ('KERNEL=="a" KERNEL=="b"', "expected ',' between two filters", 12),
        ('ATTR=="a"', "expected a key in braces after ATTR", 4),
        ('KERNEL="a"', "expected == or !=, found =", 6),
        ("KERNEL==a", "expected a value in double quotes", 8),
        ('SYMLINK=="a"', "expected a field that Akri supports, found SYMLINK", 0),
    ],
)
def test_invalid_rule_of_udev_is_an_error_with_its_position(rule: str, message: str, offset: int) -> None:
    with pytest.raises(RuleSyntaxError, match=r"^expected") as raised:
        parse_rule(rule)
    assert str(raised.value).replace("'", "").startswith(message.replace("'", ""))
    assert raised.value.offset == offset
