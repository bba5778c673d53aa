"""Discovery on the /sys of real machines (``tests/sysroots``): the devices, and the files that are read."""

from collections import Counter
from pathlib import Path

import pytest

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.spec.model import Config
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER
from tests.support.hardware import rescan
from tests.support.sysroots import extract_sysroot


def read_config(resources: str) -> Config:
    return load_text(f"{CONFIG_HEADER}resources:\n{resources}", "x.yaml")


def open_machine(name: str, root: Path, *nodes: str) -> Host:
    """Return the host of a captured machine, with these device nodes."""
    extract_sysroot(name, root)
    build_tree("\n".join(nodes), root)
    return Host.at(root)


def find_excluded(inventory: Inventory) -> dict[str, str]:
    return {outcome.path: outcome.reason for outcome in inventory.outcomes if outcome.device is None}


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


def test_devdax_devices_of_the_driver_are_found(tmp_path: Path) -> None:
    host = open_machine(
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
    inventory = discover(read_config(DAX), host)
    first, second = inventory.devices["pmem.example.com/devdax"]
    assert [
        (node.path, node.info.major, node.info.minor) for device_node in (first, second) for node in device_node.nodes
    ] == [
        ("/dev/dax0.0", 252, 1),
        ("/dev/dax1.3", 252, 6),
    ]
    assert [device.attributes["attr.size"] for device in (first, second)] == [("107808292864",), ("63415779328",)]
    assert [(device.attributes["major"], device.attributes["minor"]) for device in (first, second)] == [
        (("252",), ("1",)),
        (("252",), ("6",)),
    ]
    # The kernel has no NUMA node for the device; the nearest ancestor with a NUMA node is its namespace.
    assert [device.numa for device in (first, second)] == [(0,), (1,)]
    assert first.attributes["dimms"] == ("nmem0", "nmem1")
    assert first.attributes["flags"] == ("smart_notify", "not_armed smart_notify")
    assert "flags" not in second.attributes
    [reason] = find_excluded(inventory).values()
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


def test_adapter_with_two_ports_is_a_single_device(tmp_path: Path) -> None:
    devices = discover(read_config(HCA), open_machine("infiniband-amdgpu", tmp_path)).devices["rdma/hca"]
    ports = {device.key: (device.attributes["ports"], device.attributes["states"]) for device in devices}
    single, double = (("1",), ("ACTIVE",)), (("1", "2"), ("ACTIVE", "ACTIVE"))
    assert ports == {"hfi1_0": single, "mlx4_0": double, "mlx5_0": single}


def test_card_has_link_and_error_attributes(tmp_path: Path) -> None:
    [card] = discover(read_config(HCA), open_machine("infiniband-amdgpu", tmp_path)).devices["amd.com/card"]
    assert card.attributes["attr.current_link_width"] == ("16",)
    assert card.attributes["fatal"] == ("0",)
    assert card.attributes["attr.unique_id"] == ("0123456789abcdef",)


P100 = """
  nvidia.com/gpu:
    devices: [{glob: /sys/bus/pci/devices/*, where: {pci.vendor: "10de", pci.class: "0302*"}}]
    allocate: {env: {GPU: "${pci.address}", DRIVER: "${driver}"}}
"""


def test_gpu_is_found_by_vendor_and_class(tmp_path: Path) -> None:
    inventory = discover(read_config(P100), open_machine("pci-nvidia-p100", tmp_path))
    [gpu] = inventory.devices["nvidia.com/gpu"]
    assert (gpu.attributes["pci.address"], gpu.attributes["driver"], gpu.numa) == (("0000:06:00.0",), ("nvidia",), ())
    assert len(find_excluded(inventory)) == 28


THOUSAND = """
  a.example/x:
    devices: [{glob: "/sys/bus/x/devices/*", where: {attr.state: enabled}, nodes: ["/dev/${name}"]}]
    allocate: {env: {SIZES: "${attr.size}", SERIALS: "${attr.serial}"}}
"""


@pytest.fixture
def thousand_devices(tmp_path: Path) -> Path:
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


def test_scan_reads_each_required_file_once(thousand_devices: Path) -> None:
    accesses: Counter[tuple[Access, str]] = Counter()
    inventory = discover(
        read_config(THOUSAND),
        Host.at(thousand_devices, recorder=lambda access, path: accesses.update([(access, path)])),
    )
    assert len(inventory.devices["a.example/x"]) == 1000
    read = {
        path: count for (access, path), count in accesses.items() if access is Access.READ and path.startswith("/sys")
    }
    # Three files of each device, and the NUMA node of each bridge.
    assert (len(read), set(read.values())) == (3010, {1})
    listed = [path for access, path in accesses if access is Access.LIST]
    assert listed == ["/sys/bus/x/devices"]


def test_changed_device_is_read_without_the_others(thousand_devices: Path) -> None:
    accesses: list[tuple[Access, str]] = []
    host = Host.at(thousand_devices, recorder=lambda access, path: accesses.append((access, path)))
    spec = read_config(THOUSAND)
    before = discover(spec, host)
    accesses.clear()
    (thousand_devices / "sys/devices/bridge5/x555/size").write_text("7")
    after = rescan(spec, host, before, {"/sys/devices/bridge5": frozenset({"x555"})})
    assert sorted(path for access, path in accesses if access is Access.READ) == [
        "/dev/x555",
        "/sys/devices/bridge5/numa_node",
        *(f"/sys/devices/bridge5/x555/{name}" for name in ("serial", "size", "state")),
    ]
    assert len(accesses) < 40
    changed = [
        new
        for new, old in zip(*(found.devices["a.example/x"] for found in (after, before)), strict=True)
        if new is not old
    ]
    assert [(device.key, device.attributes["attr.size"]) for device in changed] == [("/sys/bus/x/devices/x555", ("7",))]


def test_added_device_is_read_without_the_others(thousand_devices: Path) -> None:
    accesses: list[tuple[Access, str]] = []
    host = Host.at(thousand_devices, recorder=lambda access, path: accesses.append((access, path)))
    spec = read_config(THOUSAND)
    before = discover(spec, host)
    accesses.clear()
    build_tree(
        "/sys/bus/x/devices/y0 -> ../../../devices/bridge9/y0\n/sys/devices/bridge9/y0/state = enabled\n"
        "/sys/devices/bridge9/y0/size = 1\n/sys/devices/bridge9/y0/serial = y\n/dev/y0 char 240:9999",
        thousand_devices,
    )
    after = rescan(spec, host, before, {"/sys/bus/x/devices": frozenset({"y0"}), "/dev": frozenset({"y0"})})
    assert len(after.devices["a.example/x"]) == 1001
    assert {path for access, path in accesses if access is Access.READ and path.startswith("/sys")} == {
        "/sys/devices/bridge9/numa_node",
        *(f"/sys/devices/bridge9/y0/{name}" for name in ("serial", "size", "state")),
    }
