"""The needs of a configuration from the container of the agent: each need at the key that causes it."""

import textwrap
from typing import Any

import pytest

from genplug.config.load import load_text
from genplug.config.privileges import PROVISIONS, build_security_context, find_needs
from genplug.health.probes import PROBES
from genplug.spec.privileges import NeedKind, find_hidden_path
from tests.support.configs import CONFIG_HEADER
from tests.support.recipes import RECIPES, config_path


def find(resource: str) -> list[tuple[str, str, int]]:
    """Return the kind, the subject and the line of each need of a resource; line 1 is the first line of its text."""
    text = textwrap.indent(textwrap.dedent(resource).strip("\n"), "    ")
    config = load_text(f"{CONFIG_HEADER}resources:\n  example.com/x:\n{text}\n", "genplug.yaml", None)
    first = CONFIG_HEADER.count("\n") + 3
    return [(need.kind.value, need.subject, need.location.line - first + 1) for need in find_needs(config)]


@pytest.mark.parametrize(
    ("probe", "needs"),
    [
        ("open: {mode: r}", [("deviceAccess", "")]),
        ("kernelLog: {fail: x}", [("kernelLog", "")]),
        ("uevent: {fail: x}", [("uevents", "")]),
        ("exec: {command: [/opt/check, -v]}", [("program", "/opt/check")]),
        ("http: {url: 'http://localhost:9400/health?token=x'}", [("network", "http://localhost:9400/health")]),
        ("tcpSocket: {port: 9400}", [("network", "port 9400")]),
        ("unixSocket: {path: /run/x.sock}", [("hostPath", "/run/x.sock")]),
        ("unixSocket: {path: '/dev/x/${name}.sock'}", []),
        ("file: {path: '/sys/${name}/state', equals: ok}", []),
        ("file: {path: '/proc/driver/x', equals: ok}", []),
        ("file: {path: '/run/udev/data/c1:3', matches: ok}", []),
        ("file: {path: '/run/x/${name}/state', equals: ok}", [("hostPath", "/run/x")]),
        ("file: {path: '/sys/a', equalsFile: /etc/limit}", [("hostPath", "/etc/limit")]),
        ("file: {path: '/sys/class/kfd/kfd/topology/nodes/1/name', equals: x}", [("deviceAccess", "")]),
    ],
)
def test_probe_needs(probe: str, needs: list[tuple[str, str]]) -> None:
    resource = f"devices: [{{glob: /dev/x*}}]\nhealth:\n  probes:\n  - {probe}"
    assert find(resource) == [(*need, 4) for need in needs]


def test_paths_of_devices_and_attributes_are_needs_where_they_are_written() -> None:
    assert find("""
        devices:
        - glob: [/dev/a*, "/opt/{x,y}/dev*"]
          attributes:
            serial: {path: ["/sys/${name}", "/etc/serials/${name}"]}
            node:
              path: /sys/class/kfd/kfd/topology/nodes/*/properties
          with:
          - /var/shared
          nodes: ["/dev/${name}"]
    """) == [
        ("hostPath", "/opt", 2),
        ("hostPath", "/var/shared", 8),
        ("hostPath", "/etc/serials", 4),
        ("deviceAccess", "", 5),
    ]


def test_allocation_and_pre_start_are_needs() -> None:
    assert find("""
        devices: [{glob: /dev/x*}]
        allocate:
          inject: cdi
          cdiDevices: [example.com/x=a]
          mounts:
          - {containerPath: /lib/x, hostPath: /usr/local/x}
          - {containerPath: /y, hostPath: "/opt/${name}/y"}
          - {containerPath: /z, hostPath: /sys/z}
        preStart:
          exec: {command: [/bin/reset]}
    """) == [
        ("hostPath", "/usr/local/x", 6),
        ("hostPath", "/opt", 7),
        ("cdiSpecDir", "", 3),
        ("cdiSearchDirs", "", 4),
        ("program", "/bin/reset", 10),
    ]


def test_dynamic_resource_allocation_needs_a_driver_and_cdi_files() -> None:
    assert find("""
        serve: dra
        devices: [{glob: /dev/x*}]
    """) == [("cdiSpecDir", "", 0), ("draDriver", "", 0)]


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/dev/x", ""),
        ("/device", "/device"),
        ("/sys", ""),
        ("/system/x*", "/system"),
        ("/proc/driver/nvidia/*", ""),
        ("/proc/devices", ""),
        ("/proc/modules", "/proc/modules"),
        ("/opt/a/b*c/d", "/opt/a"),
        ("/opt/a[0-9]/d", "/opt"),
        ("/opt/${name}", "/opt"),
        ("/{dev,opt}/x", ""),
        ("${env.ROOT}/x", ""),
    ],
)
def test_path_before_the_first_wildcard_decides(path: str, hidden: str) -> None:
    assert find_hidden_path(path) == hidden


def test_every_kind_of_need_has_a_provision() -> None:
    assert set(PROVISIONS) == set(NeedKind)


def test_every_probe_kind_that_is_not_a_read_states_its_needs() -> None:
    silent = {name for name, kind in PROBES.items() if kind.needs.__name__ == "<lambda>"}
    assert silent == {"pci"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_needs_a_privileged_container_only_for_partitions_of_amd(recipe: str) -> None:
    text = config_path(recipe).read_text()
    context: dict[str, Any] = build_security_context(find_needs(load_text(text, recipe, None)))
    assert context["privileged"] is (recipe == "amd-gpu-partitions")
    if not context["privileged"]:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["capabilities"].get("add", []) == (["SYSLOG"] if "kernelLog:" in text else [])
