"""Attributes: the files that each is read from, and how custom attributes join files."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from genplug.config.load import load_text
from genplug.hardware.attributes import ATTRIBUTES
from genplug.hardware.discovery import discover
from genplug.hardware.explain import explain
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.spec.globs import expand_braces
from genplug.spec.policy import Policy
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER
from tests.support.hardware import BLOCK_POLICY

PCI = """
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0
/sys/bus/pci/devices/0000:3b:00.1 -> ../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1
/sys/bus/pci/devices/0000:3b:02.3 -> ../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:02.3
/sys/bus/pci/drivers/good/ directory
/sys/bus/pci/drivers/pcieport/ directory
/sys/devices/pci0000:3a/0000:3a:00.0/driver -> ../../../bus/pci/drivers/pcieport
/sys/devices/pci0000:3a/0000:3a:00.0/subsystem -> ../../../bus/pci
/sys/devices/pci0000:3a/0000:3a:00.0/numa_node = 1
/sys/devices/pci0000:3a/0000:3a:00.0/only_here = of the bridge
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/subsystem -> ../../../../bus/pci
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/driver -> ../../../../bus/pci/drivers/good
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/vendor = 0x10de
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/device = 0x15f8
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/subsystem_vendor = 0x10df
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/subsystem_device = 0x118f
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/class = 0x030200
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/numa_node = -1
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/local_cpulist = 0-7
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/serial_number = first line\\nsecond
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/says_nothing =
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/iommu_group -> ../../../../kernel/iommu_groups/42
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/virtfn0 -> ../0000:3b:02.2
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/virtfn1 -> ../0000:3b:02.3
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0/dev = 226:0
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0/device -> ../../../0000:3b:00.0
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0/subsystem -> ../../../../../../class/drm
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0/card0-DP-1/ directory
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/renderD128/dev = 226:128
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/subsystem -> ../../../../bus/pci
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/vendor = 0x10de
/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:02.3/physfn -> ../0000:3b:00.0
/sys/class/drm/ directory
/sys/kernel/iommu_groups/42/devices/0000:3b:00.0 -> ../../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0
/sys/kernel/iommu_groups/42/devices/0000:3b:00.1 -> ../../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1
/sys/dev/char/226:0 -> ../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0
/dev/dri/card0 char 226:0
/dev/vfio/42 char 511:0
/dev/lonely char 240:0
"""

CARD = "/dev/dri/card0"
FUNCTION = "/sys/bus/pci/devices/0000:3b:00.0"


def found(tree: str, resources: str, root: Path, policy: Policy = BLOCK_POLICY, **host: object) -> Inventory:
    build_tree(tree, root)
    config = load_text(
        f"apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n{resources}", "devices.yaml", policy
    )
    return discover(config, Host.at(root, **host))  # type: ignore[arg-type]


def resources_with(name: str, path: str) -> str:
    """Return a resource with the device of a path, whose key is an attribute; ``-none-`` if it does not exist."""
    return f"""
  a.example/x:
    topology: none
    devices: [{{glob: "{path}", id: "${{{name}|default:-none-}}"}}]
    allocate: {{env: {{X: x}}}}
"""


def attribute(name: str, path: str, tree: str, root: Path) -> str | None:
    """Return an attribute of a path as a template renders it, None if it does not exist."""
    [device] = found(tree, resources_with(name, path), root).devices["a.example/x"]
    return None if device.key == "-none-" else device.key


USB = """
/dev/ttyUSB0 char 188:0
/sys/dev/char/188:0 -> ../../devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.2/1-1.2:1.0/ttyUSB0/tty/ttyUSB0
/sys/devices/pci0000:00/0000:00:14.0/usb1/idVendor = 1d6b
/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.2/idVendor = 0403
/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.2/idProduct = 6001
/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.2/serial = A50285BI
/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.2/1-1.2:1.0/ttyUSB0/tty/ttyUSB0/dev = 188:0
"""


HCA = """
/dev/infiniband/uverbs0 char 231:192
/dev/infiniband/umad1 char 231:1
/sys/dev/char/231:192 -> ../../devices/pci0000:40/0000:41:00.0/infiniband_verbs/uverbs0
/sys/dev/char/231:1 -> ../../devices/pci0000:40/0000:41:00.0/infiniband_mad/umad1
/sys/devices/pci0000:40/0000:41:00.0/infiniband_verbs/uverbs0/ibdev = mlx5_0
/sys/devices/pci0000:40/0000:41:00.0/infiniband_mad/umad1/ibdev = mlx5_0
/sys/devices/pci0000:40/0000:41:00.0/infiniband/mlx5_0/node_guid = b859:9f03:00c8:5a42
/sys/devices/pci0000:40/0000:41:00.0/infiniband/mlx5_0/ports/1/link_layer = InfiniBand
/sys/devices/pci0000:40/0000:41:00.0/infiniband/mlx5_0/ports/2/link_layer = Ethernet
/sys/class/infiniband/mlx5_0 -> ../../devices/pci0000:40/0000:41:00.0/infiniband/mlx5_0
/sys/bus/pci/devices/0000:41:00.0 -> ../../../devices/pci0000:40/0000:41:00.0
"""


SERIAL_PORT = "/dev/ttyUSB0"
VERBS, HCA_FUNCTION = "/dev/infiniband/uverbs0", "/sys/bus/pci/devices/0000:41:00.0"
HCA_PATHS = (
    VERBS,
    "/dev/infiniband/umad1",
    "/sys/class/infiniband/mlx5_0",
    "/sys/class/infiniband/mlx5_0/ports/1",
    HCA_FUNCTION,
)

NET = """
/sys/bus/pci/devices/0000:5e:00.0 -> ../../../devices/pci0000:5d/0000:5e:00.0
/sys/devices/pci0000:5d/0000:5e:00.0/net/ens1f0/address = b8:59:9f:00:00:01
/sys/devices/pci0000:5d/0000:5e:00.0/net/ens1f0/device -> ../../../0000:5e:00.0
/sys/devices/pci0000:5d/0000:5e:00.0/net/ens1f1/address = b8:59:9f:00:00:02
/sys/class/net/ens1f0 -> ../../devices/pci0000:5d/0000:5e:00.0/net/ens1f0
/sys/class/net/lo/address = 00:00:00:00:00:00
/sys/kernel/iommu_groups/7/devices/0000:5e:00.0 -> ../../../../devices/pci0000:5d/0000:5e:00.0
/dev/vfio/7 char 511:7
"""
NIC, NIC_GROUP = "/sys/bus/pci/devices/0000:5e:00.0", "/dev/vfio/7"
INTERFACE, LOOPBACK = "/sys/class/net/ens1f0", "/sys/class/net/lo"
VMD_NODE, PLATFORM_NODE, PLAIN_NODE = "/dev/vmd0", "/dev/platform0", "/dev/plain0"
"""Behind the bridge of a volume management device with a PCI domain of its own; below a platform device; not on PCI."""
ROOTS = """
/dev/vmd0 char 240:1
/dev/platform0 char 240:2
/dev/plain0 char 240:3
/sys/dev/char/240:1 -> ../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme0
/sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme0/ directory
/sys/dev/char/240:2 -> ../../devices/platform/soc/fd500000.pcie/pci0001:00/0001:00:00.0/0001:01:00.0/misc/x
/sys/devices/platform/soc/fd500000.pcie/pci0001:00/0001:00:00.0/0001:01:00.0/misc/x/ directory
/sys/dev/char/240:3 -> ../../devices/virtual/misc/x
/sys/devices/virtual/misc/x/ directory
"""
TREES = (
    {SERIAL_PORT: USB}
    | dict.fromkeys((VMD_NODE, PLATFORM_NODE, PLAIN_NODE), ROOTS)
    | dict.fromkeys((NIC, NIC_GROUP, INTERFACE, LOOPBACK), NET)
    | dict.fromkeys(HCA_PATHS, HCA)
)
"""The tree of a path, if it is not that of the PCI devices."""

CASES = [
    ("sysfs", CARD, "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/drm/card0"),
    ("sysfs", FUNCTION, "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"),
    ("sysfs", f"{FUNCTION}/vendor", "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"),
    ("sysfs", "/dev/lonely", None),
    ("subsystem", CARD, "drm"),
    ("subsystem", FUNCTION, "pci"),
    ("driver", CARD, "good"),
    # It has no driver; that of its bridge is not its own.
    ("driver", "/sys/bus/pci/devices/0000:3b:00.1", None),
    # -1 means unknown; the bridge above has a NUMA node.
    ("numaNode", CARD, "1"),
    ("numaNode", "/dev/vfio/42", "1"),
    ("numaNode", "/dev/lonely", None),
    ("localCpus", CARD, "0-7"),
    ("major", CARD, "226"),
    ("minor", "/sys/bus/pci/devices/0000:3b:00.0/drm/renderD128", "128"),
    ("pci.address", CARD, "0000:3b:00.0"),
    ("pci.address", "/dev/vfio/42", "0000:3b:00.0,0000:3b:00.1"),
    ("pci.slot", "/dev/vfio/42", "0000:3b:00"),
    ("pci.vendor", CARD, "0x10de"),
    ("pci.vendor", "/dev/vfio/42", "0x10de"),
    ("pci.device", CARD, "0x15f8"),
    ("pci.subsystemVendor", CARD, "0x10df"),
    ("pci.subsystemDevice", CARD, "0x118f"),
    ("pci.class", CARD, "0x030200"),
    ("pci.vendor", "/dev/lonely", None),
    ("pci.root", CARD, "pci0000:3a"),
    ("pci.root", "/dev/vfio/42", "pci0000:3a"),
    ("pci.root", SERIAL_PORT, "pci0000:00"),
    ("pci.root", VMD_NODE, "pci0000:00"),
    ("pci.root", PLATFORM_NODE, "pci0001:00"),
    ("pci.root", PLAIN_NODE, None),
    ("iommu.group", CARD, "42"),
    ("sriov.pf", "/sys/bus/pci/devices/0000:3b:02.3", "0000:3b:00.0"),
    ("sriov.vfIndex", "/sys/bus/pci/devices/0000:3b:02.3", "1"),
    ("sriov.pf", FUNCTION, None),
    ("drm.card", FUNCTION, "card0"),
    ("drm.render", CARD, "renderD128"),
    ("attr.serial_number", CARD, "first line"),
    ("attr.only_here", CARD, "of the bridge"),
    ("attr.says_nothing", CARD, None),
    ("attr.no_such_file", CARD, None),
    # A directory is not a file.
    ("attr.drm", CARD, None),
    ("usb.vendor", SERIAL_PORT, "0403"),
    ("usb.product", SERIAL_PORT, "6001"),
    ("usb.serial", SERIAL_PORT, "A50285BI"),
    ("usb.port", SERIAL_PORT, "1-1.2"),
    ("ib.device", VERBS, "mlx5_0"),
    ("ib.device", HCA_FUNCTION, "mlx5_0"),
    ("ib.linkLayer", VERBS, "Ethernet,InfiniBand"),
    ("ib.guid", VERBS, "b859:9f03:00c8:5a42"),
    ("net.interface", NIC, "ens1f0,ens1f1"),
    ("net.interface", NIC_GROUP, "ens1f0,ens1f1"),
    ("net.interface", INTERFACE, "ens1f0"),
    ("net.interface", LOOPBACK, "lo"),
    ("net.interface", FUNCTION, None),
    ("net.mac", NIC, "b8:59:9f:00:00:01,b8:59:9f:00:00:02"),
    ("net.mac", INTERFACE, "b8:59:9f:00:00:01"),
    ("net.mac", CARD, None),
]


@pytest.mark.parametrize(("name", "path", "value"), CASES)
def test_attribute_is_read_from_the_files_of_the_kernel(
    name: str, path: str, value: str | None, tmp_path: Path
) -> None:
    assert attribute(name, path, TREES.get(path, PCI), tmp_path) == value


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, path, value in CASES if name in ATTRIBUTES and value is not None]
)
def test_origin_of_value_is_documented(name: str, path: str, tmp_path: Path) -> None:
    inventory = found(TREES.get(path, PCI), resources_with(name, path), tmp_path)
    (explanation,) = (each for each in explain(inventory, Host.at(tmp_path)) if each.path == path)
    (origin,) = (each.origin for each in explanation.attributes if each.name == name)
    globs = expand_braces(ATTRIBUTES[name].origin)
    # Without a glob, the value is the name of a directory.
    assert any(fnmatchcase(origin, f"*/{glob}") for glob in globs if glob) or (globs == [""] and origin)


def test_pci_address_and_root_are_read_for_published_devices_only(tmp_path: Path) -> None:
    resources = f"""
  a.example/x:
    devices: [{{glob: {CARD}}}]
    serve: dra
    publish: {{attributes: {{vendor: "${{pci.vendor}}"}}, capacity: {{id: "${{pci.device}}"}}}}
"""
    [device] = found(PCI, resources, tmp_path).devices["a.example/x"]
    names = ("numaNode", "pci.address", "pci.device", "pci.root", "pci.vendor")
    assert {name: device.attributes[name] for name in names} == {
        "numaNode": ("1",),
        "pci.address": ("0000:3b:00.0",),
        "pci.device": ("0x15f8",),
        "pci.root": ("pci0000:3a",),
        "pci.vendor": ("0x10de",),
    }
    plugin = resources.partition("    serve")[0]
    [device] = discover(load_text(CONFIG_HEADER + f"resources:{plugin}", "c.yaml"), Host.at(tmp_path)).devices[
        "a.example/x"
    ]
    assert not {"pci.address", "pci.root", "pci.vendor"} & set(device.attributes)


@pytest.mark.parametrize("path", HCA_PATHS)
def test_every_node_of_an_adapter_has_its_attributes(path: str, tmp_path: Path) -> None:
    assert attribute("ib.device", path, HCA, tmp_path) == "mlx5_0"
    assert attribute("ib.guid", path, "", tmp_path) == "b859:9f03:00c8:5a42"
    assert attribute("ib.linkLayer", path, "", tmp_path) == "Ethernet,InfiniBand"


def test_environment_and_node_name_are_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPLUG_TEST_TOPOLOGY", "2x2")
    resources = """
  a.example/x:
    devices: [{glob: /dev/x}]
    allocate:
      env:
        NODE: ${node.name}
        TOPOLOGY: ${env.GENPLUG_TEST_TOPOLOGY}
        NONE: ${env.GENPLUG_TEST_NONE|default:-}
"""
    [device] = found("/dev/x char 240:0", resources, tmp_path, node_name="node-a").devices["a.example/x"]
    assert (device.attributes["node.name"], device.attributes["env.GENPLUG_TEST_TOPOLOGY"]) == (("node-a",), ("2x2",))
    assert "env.GENPLUG_TEST_NONE" not in device.attributes


NVIDIA = r"""
/dev/nvidia0 char 195:0
/dev/nvidia1 char 195:1
/dev/nvidia10 char 195:10
/proc/driver/nvidia/gpus/0000:3b:00.0/information = Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-0aaa\nDevice Minor: \t 10
/proc/driver/nvidia/gpus/0000:5e:00.0/information = Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-1bbb\nDevice Minor: \t 1
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3b:00.0
/sys/bus/pci/devices/0000:5e:00.0 -> ../../../devices/pci0000:5d/0000:5e:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/numa_node = 0
/sys/devices/pci0000:3a/0000:3b:00.0/vendor = 0x10de
/sys/devices/pci0000:5d/0000:5e:00.0/numa_node = 1
/sys/devices/pci0000:5d/0000:5e:00.0/vendor = 0x10de
""".replace(r"\t", "\t")

JOINED = r"""
  nvidia.com/gpu:
    devices:
    - glob: /dev/nvidia[0-9]*
      attributes:
        bdf: {path: /proc/driver/nvidia/gpus/*/information, find: 'Device Minor:\s*${minor}\b', dir: true}
        uuid: {path: "/proc/driver/nvidia/gpus/${bdf}/information", find: 'GPU UUID:\s*(?P<value>\S+)'}
      sysfs: "/sys/bus/pci/devices/${bdf}"
      where: {pci.vendor: "10DE"}
      id: ${uuid}
    allocate: {env: {NVIDIA_VISIBLE_DEVICES: "${uuid}"}}
"""


def test_custom_attribute_and_sysfs_join_node_with_its_device(
    tmp_path: Path,
) -> None:
    inventory = found(NVIDIA, JOINED, tmp_path)
    devices = {device.candidates[0]: device for device in inventory.devices["nvidia.com/gpu"]}
    assert {path: (device.key, device.numa) for path, device in devices.items()} == {
        "/dev/nvidia1": ("GPU-1bbb", (1,)),
        "/dev/nvidia10": ("GPU-0aaa", (0,)),
    }
    [left] = [outcome for outcome in inventory.outcomes if outcome.device is None]
    assert (left.path, left.reason) == (
        "/dev/nvidia0",
        "where: it has no pci.vendor, expected 10DE (devices.yaml:12:15)",
    )


FILES = r"""
/dev/x0 char 240:0
/run/a.b/one = first: 1\nsecond: 2\nsecond: 3
/run/aXb/one = first: 9
/run/links/to -> ../a.b
/run/dimms/nmem0 = ok
/run/dimms/nmem10 = not_armed
/run/dimms/nmem2 = ok
"""


@pytest.mark.parametrize(
    ("own", "value"),
    [
        ("{path: /run/a.b/one}", "first: 1\nsecond: 2\nsecond: 3"),
        ("{path: /run/a.b/one, find: 'second: .'}", "second: 2"),
        ("{path: /run/a.b/one, find: 'second: (.)'}", "2"),
        ("{path: /run/a.b/one, find: '(s)econd: (?P<value>.)'}", "2"),
        ("{path: /run/a.b/one, find: 'second: (.)', all: true}", "2,3"),
        ("{path: '/run/*/one', find: 'first: 1', dir: true}", "a.b"),
        ("{path: '/run/*/one', find: 'first: (.)', all: true}", "1,9"),
        # In the order of the files, with repeats.
        ("{path: '/run/dimms/nmem*', all: true}", "ok,ok,not_armed"),
        ("{path: /run/links/to}", "a.b"),
        ("{path: '/run/d*'}", "dimms"),
        ("{path: /run/none}", None),
        ("{path: /run/a.b/one, find: third}", None),
        # The value stands for itself: its dot is a dot, its star no star.
        ("{path: '/run/${env.GENPLUG_TEST_DOT}/o*', find: 'first: (.)'}", "1"),
        ("{path: '/run/${env.GENPLUG_TEST_STAR}/one'}", None),
        ("{path: /run/a.b/one, find: 'second. ${env.GENPLUG_TEST_STAR}'}", None),
        # The first path that gives a value is used.
        ("{path: [/run/none, '/run/${usb.port}', '/run/dimms/nmem1?', /run/dimms/nmem0]}", "not_armed"),
        ("{path: [/run/a.b/one, /run/aXb/one], find: 'first: (9)'}", "9"),
        ("{path: ['/run/none*', '/run/dimms/nmem[02]', '/run/dimms/*'], all: true}", "ok,ok"),
        ("{path: [/run/none, /run/gone]}", None),
        # A regular expression searches the path of a directory without symbolic links.
        ("{path: /run/links/to, find: '^/run/(a..)$'}", "a.b"),
        ("{path: '/run/*', find: '/run/d(.*)'}", "imms"),
        ("{path: '/run/*', find: '/run/([ad].*)', all: true}", "a.b,aXb,dimms"),
        ("{path: /run/links/to, find: links}", None),
        # A text of other attributes, and a part of it.
        ("{value: '${name}-${minor}'}", "x0-0"),
        ("{value: '${path}', find: '/(\\w+)/'}", "dev"),
        ("{value: '${path}', find: '\\w+', all: true}", "dev,x0"),
        ("{value: ['${usb.serial}', '${usb.port}', '${name}']}", "x0"),
        ("{value: ['${path}', '${name}'], find: '^x'}", "x"),
        ("{value: ['${usb.serial}', '${usb.port}']}", None),
        ("{value: '${usb.serial|or:minor}'}", "0"),
    ],
)
def test_custom_attribute_is_a_text_a_capture_or_a_name(
    own: str, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENPLUG_TEST_DOT", "a.b")
    monkeypatch.setenv("GENPLUG_TEST_STAR", "*")
    resources = f"""
  a.example/x:
    devices: [{{glob: /dev/x0, attributes: {{mine: {own}}}}}]
    allocate: {{env: {{X: "${{mine|default:none}}"}}}}
"""
    [device] = found(FILES, resources, tmp_path).devices["a.example/x"]
    shown: Mapping[str, tuple[str, ...]] = device.attributes
    assert (",".join(shown["mine"]) if "mine" in shown else None) == value


FUNCTIONS = """
/dev/vfio/7 char 511:0
/sys/kernel/iommu_groups/7/devices/0000:10:00.0 -> ../../../../devices/pci0000:00/0000:10:00.0
/sys/kernel/iommu_groups/7/devices/0000:0a:00.0 -> ../../../../devices/pci0000:00/0000:0a:00.0
/sys/devices/pci0000:00/0000:0a:00.0/device = 0x228b
/sys/devices/pci0000:00/0000:0a:00.0/vendor = 0x10de
/sys/devices/pci0000:00/0000:0a:00.0/numa_node = 1
/sys/devices/pci0000:00/0000:0a:00.0/net/eth9/address = 02:00:00:00:00:01
/sys/devices/pci0000:00/0000:0a:00.0/net/eth10/address = 00:00:00:00:00:02
/sys/devices/pci0000:00/0000:10:00.0/device = 0x1db6
/sys/devices/pci0000:00/0000:10:00.0/vendor = 0x10de
/sys/devices/pci0000:00/0000:10:00.0/numa_node = 0
/sys/devices/pci0000:00/0000:10:00.0/ports/1/state = ACTIVE
/sys/devices/pci0000:00/0000:10:00.0/ports/2/state = ACTIVE
/sys/devices/pci0000:00/0000:10:00.0/ports/10/state = DOWN
"""


def test_values_of_two_attributes_at_one_position_are_of_one_function_interface_or_file(tmp_path: Path) -> None:
    resources = """
  a.example/x:
    devices:
    - glob: /dev/vfio/7
      attributes:
        port: {path: "/sys/devices/pci0000:00/0000:10:00.0/ports/*", all: true}
        state: {path: "/sys/devices/pci0000:00/0000:10:00.0/ports/*/state", all: true}
      id: "${pci.vendor}-${pci.device}-${state}"
    allocate: {env: {A: "${pci.address}${pci.device}${numaNode}${net.interface}${net.mac}${port}"}}
"""
    [device] = found(FUNCTIONS, resources, tmp_path).devices["a.example/x"]
    values = device.attributes
    assert list(zip(values["pci.address"], values["pci.device"], values["numaNode"], strict=True)) == [
        ("0000:0a:00.0", "0x228b", "1"),
        ("0000:10:00.0", "0x1db6", "0"),
    ]
    assert list(zip(values["net.interface"], values["net.mac"], strict=True)) == [
        ("eth9", "02:00:00:00:00:01"),
        ("eth10", "00:00:00:00:00:02"),
    ]
    assert list(zip(values["port"], values["state"], strict=True)) == [("1", "ACTIVE"), ("2", "ACTIVE"), ("10", "DOWN")]
    assert values["pci.vendor"] == ("0x10de", "0x10de")
    # Texts that identify a device are independent of the number and order of values.
    assert device.key == "0x10de-0x1db6,0x228b-ACTIVE,DOWN"
    assert device.numa == (0, 1)


SWITCH = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"
SWITCHED = f"""
/sys/bus/pci/devices/0000:3d:00.0 -> {SWITCH}/0000:3c:04.0/0000:3d:00.0
/sys/bus/pci/devices/0000:3e:00.0 -> {SWITCH}/0000:3c:08.0/0000:3e:00.0
/sys/bus/pci/devices/0000:af:00.0 -> /sys/devices/pci0000:ae/0000:ae:00.0/0000:af:00.0
{SWITCH}/0000:3c:04.0/0000:3d:00.0/vendor = 0x1d0f
{SWITCH}/0000:3c:08.0/0000:3e:00.0/vendor = 0x15b3
/sys/devices/pci0000:ae/0000:ae:00.0/0000:af:00.0/vendor = 0x15b3
"""


@pytest.mark.parametrize("origin", ['value: "${sysfs}"', 'path: "${sysfs}"', 'path: "${path}"'])
def test_functions_behind_one_pcie_switch_form_a_device(origin: str, tmp_path: Path) -> None:
    resources = f"""
  a.example/island:
    devices:
    - glob: /sys/bus/pci/devices/*
      attributes:
        switch: {{{origin}, find: '/([^/]+)/[^/]+/[^/]+$'}}
      groupBy: "${{switch}}"
    allocate: {{env: {{FUNCTIONS: "${{pci.address}}", VENDORS: "${{pci.vendor}}"}}}}
"""
    devices = found(SWITCHED, resources, tmp_path).devices["a.example/island"]
    assert [(device.key, device.attributes["pci.address"], device.attributes["pci.vendor"]) for device in devices] == [
        ("0000:3b:00.0", ("0000:3d:00.0", "0000:3e:00.0"), ("0x1d0f", "0x15b3")),
        ("pci0000:ae", ("0000:af:00.0",), ("0x15b3",)),
    ]


LIMITED = {
    "{path: '/run/many/*', all: true}": "has more than 1000 values",
    "{path: /run/long, find: '[a-z]'}": None,
    "{path: /run/long}": "has a value of 5000 characters, at most 4096 are allowed; extract a part of it with 'find'",
    "{path: /run/wide, find: '[0-9]+', all: true}": "has values of more than 16384 characters together",
    "{path: '/run/${many}/${many}'}": "renders to 810000 or more texts",
    "{value: '${many}${many}', all: true}": None,
}


@pytest.mark.parametrize(("own", "reason"), LIMITED.items(), ids=LIMITED)
def test_candidate_with_an_attribute_over_a_limit_is_left_out_with_the_limit(
    own: str, reason: str | None, tmp_path: Path
) -> None:
    tree = "/dev/x0 char 240:0\n/dev/x1 char 240:1\n"
    tree += "".join(f"/run/many/{number} = {number}\n" for number in range(1001))
    tree += f"/run/long = {'a' * 5000}\n/run/wide = {' '.join(str(n) + '1' * 40 for n in range(500))}\n"
    if "${many}" in own:
        own = own.replace("${many}/${many}", "${a}/${b}").replace("${many}", "${a}")
    resources = f"""
  a.example/x:
    devices:
    - glob: /dev/x0
      attributes:
        a: {{path: '/run/many/*[1-9]', find: '.*[^0]$', all: true}}
        b: {{path: '/run/many/*[1-9]', find: '.*[^0]$', all: true}}
        mine: {own}
    allocate: {{env: {{X: "${{mine|default:none}}"}}}}
  a.example/y: {{devices: [{{glob: /dev/x1}}]}}
"""
    inventory = found(tree, resources, tmp_path)
    reasons = [outcome.reason for outcome in inventory.outcomes if outcome.device is None]
    assert len(inventory.devices["a.example/y"]) == 1
    if reason is None:
        assert reasons == []
        return
    assert len(reasons) == 1
    assert reasons[0].startswith("the attribute 'mine' (devices.yaml:")
    assert reason in reasons[0]
    [explained] = [one for one in explain(inventory, Host.at(tmp_path)) if one.resource == "a.example/x"]
    assert any(reason in attribute.origin for attribute in explained.attributes if attribute.name == "mine")


def test_condition_may_use_attribute_of_which_sysfs_is_made(tmp_path: Path) -> None:
    resources = JOINED.replace('where: {pci.vendor: "10DE"}', 'where: {bdf: "0000:5e:*", pci.vendor: "10de"}')
    [device] = found(NVIDIA, resources, tmp_path).devices["nvidia.com/gpu"]
    assert (device.key, device.numa) == ("GPU-1bbb", (1,))


def test_optional_node_with_missing_attribute_is_left_out(tmp_path: Path) -> None:
    resources = """
  a.example/x: {devices: [{glob: /dev/x0, with: [{path: "/dev/${usb.port}", optional: true}]}]}
  a.example/y: {devices: [{glob: /dev/x1, with: ["/dev/${usb.port}"]}]}
"""
    devices = found("/dev/x0 char 240:0\n/dev/x1 char 240:1", resources, tmp_path).devices
    assert devices["a.example/x"][0].faults == ()
    assert "companion a path at devices.yaml:6:50 refers to 'usb.port'" in devices["a.example/y"][0].faults[0]


def test_verbatim_id_is_not_changed(tmp_path: Path) -> None:
    resources = """
  a.example/x:
    devices: [{glob: "/sys/bus/pci/devices/*", where: {pci.vendor: 10de}, id: "${WHAT}", verbatimId: true}]
    allocate: {env: {X: x}}
"""
    good = found(PCI, resources.replace("WHAT", "pci.address"), tmp_path).devices["a.example/x"]
    assert [device.id for device in good] == ["0000:3b:00.0", "0000:3b:00.1"]
    bad = found("", resources.replace("WHAT", "path"), tmp_path).devices["a.example/x"]
    assert bad[0].faults[0].startswith("its ID '/sys/bus/pci/devices/0000:3b:00.0' must consist of letters")


def test_selector_matches_any_of_several_values(tmp_path: Path) -> None:
    resources = """
  a.example/x:
    devices: [{glob: /dev/vfio/42, where: {pci.address: "*:3b:00.1"}}]
  a.example/y:
    devices: [{glob: /dev/vfio/42, where: {pci.address: {notIn: "*:3b:00.1"}}}]
"""
    devices = found(PCI, resources, tmp_path).devices
    assert [len(devices[name]) for name in ("a.example/x", "a.example/y")] == [1, 0]
