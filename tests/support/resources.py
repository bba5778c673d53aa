"""Names, configurations and policies of the resources that the contract tests offer."""

from collections.abc import Sequence
from pathlib import Path

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER

X, Y, Z = "example.com/x", "example.com/y", "example.com/z"


def build_config(resources: Sequence[str]) -> str:
    """Return a configuration with these resources; the last part of a resource's name starts those of its devices."""
    lines = (f"  ? {name}\n  : {{devices: [{{glob: '/dev/{name.rpartition('/')[2]}*'}}]}}\n" for name in resources)
    return f"{CONFIG_HEADER}resources:{'' if resources else ' {}'}\n{''.join(lines)}"


def build_x_config(options: str = "", *, glob: str = "/dev/x*", source: str = "") -> str:
    """Return a configuration of ``example.com/x`` on three lines.

    ``options`` are further keys of the resource, ``source`` further keys beside ``glob``, both as YAML flow mappings
    without braces.
    """
    device = ", ".join(filter(None, (f"glob: {glob}", source)))
    resource = ", ".join(filter(None, (f"devices: [{{{device}}}]", options)))
    return f"{CONFIG_HEADER}resources: {{{X}: {{{resource}}}}}"


X_CONFIG = build_x_config()
XY_CONFIG = build_config([X, Y])


def plug_devices(node: FakeNode, *names: str) -> None:
    """Create a device node in ``/dev`` for each name."""
    for name in names:
        node.plug(f"/dev/{name}")


def write_policy(node: FakeNode, rules: str) -> Path:
    """Write a policy with these rules, outside of the directory of the configuration."""
    path = node.directory / "policy.yaml"
    path.write_text(POLICY_HEADER + rules)
    return path


def list_host_paths(response: pb.ContainerAllocateResponse) -> list[str]:
    """Return the paths on the host of the device nodes that a container gets."""
    return [device.host_path for device in response.devices]
