"""Every file of examples/configs is valid and offers, on a node with fitting devices, what its comments promise."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import field, frozen

from genplug.config.load import load
from genplug.config.problem import ConfigInvalidError
from genplug.testing.node import FakeNode

CONFIGS = Path(__file__).parent.parent / "examples" / "configs"
POLICIES = CONFIGS.with_name("policies")


@frozen
class Given:
    """What a container gets with one device: nodes as ``host path`` or ``host path -> container path``."""

    nodes: tuple[str, ...]
    env: Mapping[str, str] = field(factory=dict)
    mounts: tuple[str, ...] = ()


@frozen
class Row:
    """A node's devices (path to major number), links, folders, and what is offered there by resource and ID."""

    devices: Mapping[str, int]
    offered: Mapping[str, Mapping[str, Given]]
    links: Mapping[str, str] = field(factory=dict)
    folders: tuple[str, ...] = ()


BY_ID = "/dev/serial/by-id/usb-FTDI_FT232R"

ROWS: dict[str, Row] = {
    "devdax.yaml": Row(
        devices={"/dev/dax0.0": 252, "/dev/dax10.0": 252, "/dev/dax1.3": 252, "/dev/daxctl": 252},
        offered={
            "pmem.example.com/devdax": {
                "dax0-0-vsrnbe": Given(("/dev/dax0.0",), {"DAX_DEVICES": "/dev/dax0.0", "DAX_COUNT": "1"}),
                "dax1-3-csh26z": Given(("/dev/dax1.3",), {"DAX_DEVICES": "/dev/dax1.3", "DAX_COUNT": "1"}),
                "dax10-0-vh6lcl": Given(("/dev/dax10.0",), {"DAX_DEVICES": "/dev/dax10.0", "DAX_COUNT": "1"}),
            }
        },
    ),
    "fpga-dfl.yaml": Row(
        devices={"/dev/dfl-port.0": 243, "/dev/dfl-port.1": 243, "/dev/dfl-fme.0": 243},
        offered={
            "fpga.intel.com/port": {
                "dfl-port-0-zm2vc2": Given(("/dev/dfl-port.0",), {"FPGA_PORT": "0"}),
                "dfl-port-1-67maiv": Given(("/dev/dfl-port.1 -> /dev/dfl-port.0",), {"FPGA_PORT": "1"}),
            },
            "fpga.intel.com/management": {"dfl-fme-0-jofimv": Given(("/dev/dfl-fme.0",))},
        },
    ),
    "fuse-kvm-tun.yaml": Row(
        devices={"/dev/fuse": 10, "/dev/kvm": 10, "/dev/net/tun": 10},
        offered={
            resource: {f"{pool}-t{token}": Given((path,)) for token in range(100)}
            for resource, pool, path in (
                ("devices.example.com/fuse", "devices-example-com-fuse-gajhgp", "/dev/fuse"),
                ("devices.kubevirt.io/kvm", "devices-kubevirt-io-kvm-rirexi", "/dev/kvm"),
                ("devices.kubevirt.io/tun", "devices-kubevirt-io-tun-ang4tz", "/dev/net/tun"),
            )
        },
    ),
    "infiniband.yaml": Row(
        # The first adapter is InfiniBand, the second is RoCE: no subnet manager's node.
        devices={
            f"/dev/infiniband/{name}": 231 for name in ("issm0", "rdma_cm", "umad0", "umad1", "uverbs0", "uverbs1")
        },
        offered={
            "rdma/hca": {
                "hca0-m3ecip": Given(
                    tuple(f"/dev/infiniband/{name}" for name in ("issm0", "umad0", "uverbs0", "rdma_cm"))
                ),
                "hca1-b3msjb": Given(tuple(f"/dev/infiniband/{name}" for name in ("umad1", "uverbs1", "rdma_cm"))),
            }
        },
    ),
    "nvidia-gpu.yaml": Row(
        devices={f"/dev/nvidia{name}": 195 for name in ("0", "10", "2", "ctl", "-uvm", "-uvm-tools")},
        folders=("/usr/local/nvidia",),
        offered={
            "nvidia.com/gpu": {
                f"nvidia{number}": Given(
                    (f"/dev/nvidia{number}", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
                    {"NVIDIA_VISIBLE_DEVICES": number},
                    ("/usr/local/nvidia -> /usr/local/nvidia",),
                )
                for number in ("0", "2", "10")
            }
        },
    ),
    "nvidia-gpu-shared.yaml": Row(
        devices={f"/dev/nvidia{name}": 195 for name in ("0", "1", "ctl", "-uvm")},
        offered={
            "nvidia.com/gpu.shared": {
                f"nvidia{number}-r{replica}": Given(
                    (f"/dev/nvidia{number}", "/dev/nvidiactl", "/dev/nvidia-uvm"), {"NVIDIA_VISIBLE_DEVICES": number}
                )
                for number in ("0", "1")
                for replica in range(4)
            }
        },
    ),
    "usb-serial.yaml": Row(
        # Numbered in the order of plugging, which is not that of the names.
        devices={"/dev/ttyUSB0": 188, "/dev/ttyUSB1": 188},
        links={f"{BY_ID}_A1-if00-port0": "../../ttyUSB1", f"{BY_ID}_B2-if00-port0": "../../ttyUSB0"},
        offered={
            "devices.example.com/serial": {
                "serial-by-id-usb-ftdi-ft232r-a1-if00-port0-mmpfhg": Given(
                    ("/dev/ttyUSB1 -> /dev/ttyDEV0",), {"SERIAL_DEVICE": "usb-FTDI_FT232R_A1-if00-port0"}
                ),
                "serial-by-id-usb-ftdi-ft232r-b2-if00-port0-4llaef": Given(
                    ("/dev/ttyUSB0 -> /dev/ttyDEV0",), {"SERIAL_DEVICE": "usb-FTDI_FT232R_B2-if00-port0"}
                ),
            }
        },
    ),
    "video-capture.yaml": Row(
        devices={"/dev/video0": 81, "/dev/video2": 81, "/dev/video10": 81, "/dev/video3": 240},
        offered={
            "devices.example.com/camera": {
                "video0": Given(("/dev/video0",), {"CAMERAS": "/dev/video0"}),
                "video2": Given(("/dev/video2",), {"CAMERAS": "/dev/video2"}),
            }
        },
    ),
}


def policy_of(name: str) -> Path | None:
    """Return the policy that an example needs; most need none but the default."""
    return policy if (policy := POLICIES / name).exists() else None


def test_every_policy_is_that_of_an_example_which_needs_it() -> None:
    for path in POLICIES.iterdir():
        with pytest.raises(ConfigInvalidError, match="GP019"):
            load((CONFIGS / path.name,))


def test_every_example_has_a_row_and_every_row_an_example() -> None:
    assert sorted(ROWS) == sorted(path.name for path in CONFIGS.iterdir())


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_an_example_is_valid(name: str) -> None:
    assert load((CONFIGS / name,), policy=policy_of(name)).config.resources.keys() == ROWS[name].offered.keys()


@pytest.mark.parametrize("name", sorted(ROWS))
async def test_an_example_offers_what_it_promises(node: FakeNode, name: str) -> None:
    row = ROWS[name]
    for path, major in row.devices.items():
        node.plug(path, major=major)
    for path, target in row.links.items():
        node.link(path, target)
    for path in row.folders:
        node.real(path).mkdir(parents=True)
    async with node.running((CONFIGS / name).read_text(), policy=policy_of(name)):
        for resource, expected in row.offered.items():
            devices = await node.kubelet.until(resource)
            answers = (await node.kubelet.call(resource).allocate([[one] for one in devices])).container_responses
            offered = {
                one: Given(
                    tuple(
                        device.host_path
                        if device.host_path == device.container_path
                        else f"{device.host_path} -> {device.container_path}"
                        for device in answer.devices
                    ),
                    dict(answer.envs),
                    tuple(f"{mount.host_path} -> {mount.container_path}" for mount in answer.mounts),
                )
                for one, answer in zip(devices, answers, strict=True)
            }
            assert devices.healthy == devices.ids
            assert list(offered.items()) == list(expected.items())
