"""Real machines' /sys (``sysroots``, with their origin): what discovery makes of it, and how much it reads."""

from collections import Counter
from pathlib import Path

import pytest

from genplug.config.load import load_text
from genplug.hardware.discovery import discover, rescan
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.spec.model import Config
from genplug.testing.node.file_trees import build_tree
from tests.support.sysroots import extract_sysroot


def config(resources: str) -> Config:
    return load_text(f"apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n{resources}", "x.yaml")


def machine(name: str, root: Path, *nodes: str) -> Host:
    """Return a captured machine, with device nodes that its /sys speaks of."""
    extract_sysroot(name, root)
    build_tree("\n".join(nodes), root)
    return Host.at(root)


def left_out(inventory: Inventory) -> dict[str, str]:
    return {one.path: one.reason for one in inventory.outcomes if one.device is None}


DAX = """
  pmem.example.com/devdax:
    devices:
    - glob: /sys/bus/dax/devices/*
      where: {driver: device_dax, attr.size: {min: 50Gi}}
      attributes:
        dimms: {path: "${sysfs|dirname|dirname}/mapping*", find: '^(nmem\\d+)', all: true}
        flags: {path: "/sys/bus/nd/devices/${dimms}/nfit/flags", all: true}
      nodes: ["/dev/${name}"]
    allocate: {env: {SIZE: "${attr.size}", NUMBERS: "${major}:${minor}", FLAGS: "${flags|default:}"}}
"""


def test_devdax_offers_what_the_driver_left_free(tmp_path: Path) -> None:
    host = machine(
        "pmem-dax-xeon", tmp_path, "/dev/dax0.0 char 252:1", "/dev/dax1.3 char 252:6", "/dev/dax1.4 char 252:7"
    )
    # The capture has no DIMMs; these follow Documentation/ABI/testing/sysfs-bus-nvdimm.
    region = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0"
    dimms = [f"{region}/mapping{number} = nmem{number},0,1073741824,0" for number in (0, 1)]
    flags = [
        "/sys/bus/nd/devices/nmem0/nfit/flags = smart_notify",
        "/sys/bus/nd/devices/nmem1/nfit/flags = not_armed smart_notify",
    ]
    build_tree("\n".join([*dimms, *flags]), tmp_path)
    inventory = discover(config(DAX), host)
    first, second = inventory.devices["pmem.example.com/devdax"]
    assert [(node.path, node.info.major, node.info.minor) for one in (first, second) for node in one.nodes] == [
        ("/dev/dax0.0", 252, 1),
        ("/dev/dax1.3", 252, 6),
    ]
    assert [one.attributes["attr.size"] for one in (first, second)] == [("107808292864",), ("63415779328",)]
    assert [(one.attributes["major"], one.attributes["minor"]) for one in (first, second)] == [
        (("252",), ("1",)),
        (("252",), ("6",)),
    ]
    # Of the device itself the kernel says nothing: the nearest ancestor that does is its namespace.
    assert [one.numa for one in (first, second)] == [(0,), (1,)]
    assert first.attributes["dimms"] == ("nmem0", "nmem1")
    assert first.attributes["flags"] == ("not_armed smart_notify", "smart_notify")
    assert "flags" not in second.attributes
    [reason] = left_out(inventory).values()
    assert reason.startswith("where: driver is 'kmem', expected device_dax")


HCA = """
  rdma/hca:
    devices:
    - glob: /sys/class/infiniband/*
      attributes:
        ports: {path: "/sys/class/infiniband/${ib.device}/ports/*", all: true}
        states: {path: "/sys/class/infiniband/${ib.device}/ports/*/state", find: ': (\\w+)', all: true}
      where: {ib.linkLayer: infiniband}
      id: ${ib.device}
    allocate: {env: {NCCL_IB_HCA: "${ib.device}", PORTS: "${ports}", STATES: "${states}"}}
  amd.com/card:
    devices:
    - glob: /sys/class/drm/card*
      attributes:
        fatal: {path: "${path}/device/aer_dev_fatal", find: 'TOTAL_ERR_FATAL (\\d+)'}
      where: {pci.vendor: {exists: false}, attr.vendor: "1002"}
    allocate: {env: {WIDTH: "${attr.current_link_width}", FATAL: "${fatal}", SERIAL: "${attr.unique_id}"}}
"""


def test_an_adapter_is_one_device_however_many_ports_it_has(tmp_path: Path) -> None:
    devices = discover(config(HCA), machine("infiniband-amdgpu", tmp_path)).devices["rdma/hca"]
    ports = {one.key: (one.attributes["ports"], one.attributes["states"]) for one in devices}
    one, two = (("1",), ("ACTIVE",)), (("1", "2"), ("ACTIVE",))
    assert ports == {"hfi1_0": one, "mlx4_0": two, "mlx5_0": one}


def test_a_card_says_its_link_and_its_errors(tmp_path: Path) -> None:
    [card] = discover(config(HCA), machine("infiniband-amdgpu", tmp_path)).devices["amd.com/card"]
    assert card.attributes["attr.current_link_width"] == ("16",)
    assert card.attributes["fatal"] == ("0",)
    assert card.attributes["attr.unique_id"] == ("0123456789abcdef",)


P100 = """
  nvidia.com/gpu:
    devices: [{glob: /sys/bus/pci/devices/*, where: {pci.vendor: "10de", pci.class: "0302*"}}]
    allocate: {env: {GPU: "${pci.address}", DRIVER: "${driver}"}}
"""


def test_the_one_gpu_is_found_by_vendor_and_class(tmp_path: Path) -> None:
    inventory = discover(config(P100), machine("pci-nvidia-p100", tmp_path))
    [gpu] = inventory.devices["nvidia.com/gpu"]
    assert (gpu.attributes["pci.address"], gpu.attributes["driver"], gpu.numa) == (("0000:06:00.0",), ("nvidia",), ())
    assert len(left_out(inventory)) == 28


THOUSAND = """
  a.example/x:
    devices: [{glob: "/sys/bus/x/devices/*", where: {attr.state: enabled}, nodes: ["/dev/${name}"]}]
    allocate: {env: {SIZES: "${attr.size}", SERIALS: "${attr.serial}"}}
"""


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    entries = []
    for number in range(1000):
        at = f"/sys/devices/bridge{number // 100}/x{number}"
        entries += [
            f"/sys/bus/x/devices/x{number} -> ../../..{at.removeprefix('/sys')}",
            f"{at}/state = enabled",
            f"{at}/size = {number}",
            f"{at}/serial = s{number}",
            f"/dev/x{number} char 240:{number}",
        ]
    entries += [f"/sys/devices/bridge{number}/numa_node = {number % 2}" for number in range(10)]
    build_tree("\n".join(entries), tmp_path)
    return tmp_path


def test_a_scan_reads_each_file_once_and_only_what_is_asked_for(thousand: Path) -> None:
    acts: Counter[tuple[Access, str]] = Counter()
    inventory = discover(config(THOUSAND), Host.at(thousand, recorder=lambda act, path: acts.update([(act, path)])))
    assert len(inventory.devices["a.example/x"]) == 1000
    read = {path: count for (act, path), count in acts.items() if act is Access.READ and path.startswith("/sys")}
    # Three files of each device, and the NUMA node of each bridge.
    assert (len(read), set(read.values())) == (3010, {1})
    listed = [path for act, path in acts if act is Access.LIST]
    assert listed == ["/sys/bus/x/devices"]


def test_after_one_change_the_work_is_that_of_one_device(thousand: Path) -> None:
    acts: list[tuple[Access, str]] = []
    host = Host.at(thousand, recorder=lambda act, path: acts.append((act, path)))
    spec = config(THOUSAND)
    before = discover(spec, host)
    acts.clear()
    (thousand / "sys/devices/bridge5/x555/size").write_text("7")
    after = rescan(spec, host, before, {"/sys/devices/bridge5": frozenset({"x555"})})
    assert sorted(path for act, path in acts if act is Access.READ) == [
        "/dev/x555",
        "/sys/devices/bridge5/numa_node",
        *(f"/sys/devices/bridge5/x555/{name}" for name in ("serial", "size", "state")),
    ]
    assert len(acts) < 40
    changed = [
        one
        for one, old in zip(*(found.devices["a.example/x"] for found in (after, before)), strict=True)
        if one is not old
    ]
    assert [(one.key, one.attributes["attr.size"]) for one in changed] == [("/sys/bus/x/devices/x555", ("7",))]


def test_a_device_that_comes_is_read_and_no_other(thousand: Path) -> None:
    acts: list[tuple[Access, str]] = []
    host = Host.at(thousand, recorder=lambda act, path: acts.append((act, path)))
    spec = config(THOUSAND)
    before = discover(spec, host)
    acts.clear()
    build_tree(
        "/sys/bus/x/devices/y0 -> ../../../devices/bridge9/y0\n/sys/devices/bridge9/y0/state = enabled\n"
        "/sys/devices/bridge9/y0/size = 1\n/sys/devices/bridge9/y0/serial = y\n/dev/y0 char 240:9999",
        thousand,
    )
    after = rescan(spec, host, before, {"/sys/bus/x/devices": frozenset({"y0"}), "/dev": frozenset({"y0"})})
    assert len(after.devices["a.example/x"]) == 1001
    assert {path for act, path in acts if act is Access.READ and path.startswith("/sys")} == {
        "/sys/devices/bridge9/numa_node",
        *(f"/sys/devices/bridge9/y0/{name}" for name in ("serial", "size", "state")),
    }
