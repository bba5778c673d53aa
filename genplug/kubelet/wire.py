"""Encode values as v1beta1 messages.

The encoding of a repeated field is the concatenation of the encodings of its elements. Each device is therefore encoded
when it changes, and a list of 10 000 devices is a join of its parts.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.results import ListedDevice, PluginOptions
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import API_VERSION, HEALTHY, UNHEALTHY


class DeviceList(Struct, frozen=True):
    """An encoded device list. ``parts`` has the encoding of each device, ``healthy`` the number of healthy devices."""

    parts: tuple[bytes, ...] = ()
    healthy: int = 0

    @property
    def message(self) -> bytes:
        """The ``ListAndWatchResponse`` with the devices, in their order."""
        return b"".join(self.parts)

    def replace(self, start: int, stop: int, devices: Iterable[ListedDevice], healthy: int) -> "DeviceList":
        """Return the list with other devices from ``start`` to ``stop``, of which ``healthy`` devices are healthy."""
        return replace(
            self, parts=(*self.parts[:start], *map(_encode_device, devices), *self.parts[stop:]), healthy=healthy
        )


def encode_list(devices: Iterable[ListedDevice]) -> DeviceList:
    """Return a list of devices, in this order."""
    listed = tuple(devices)
    return DeviceList().replace(0, 0, listed, sum(device.healthy for device in listed))


def encode_allocate_response(containers: Iterable[ContainerEdits]) -> bytes:
    """Return an ``AllocateResponse`` with one container response for each of the edits, in this order."""
    response = pb.AllocateResponse(container_responses=[_build_container_response(edits) for edits in containers])
    return response.SerializeToString(deterministic=True)


def encode_preferred_response(containers: Iterable[Sequence[str]]) -> bytes:
    """Return a ``PreferredAllocationResponse`` with one container response for each sequence of IDs, in this order."""
    responses = [pb.ContainerPreferredAllocationResponse(deviceIDs=ids) for ids in containers]
    return pb.PreferredAllocationResponse(container_responses=responses).SerializeToString()


def encode_options(options: PluginOptions) -> bytes:
    """Return a ``DevicePluginOptions``."""
    return _build_options(options).SerializeToString()


def encode_register_request(resource: str, socket: str, options: PluginOptions) -> bytes:
    """Return a ``RegisterRequest``.

    It contains the options, which kubelets up to 1.24 read from it (docs/internals/kubelet-contract.md §2.1).
    """
    request = pb.RegisterRequest(
        version=API_VERSION, endpoint=socket, resource_name=resource, options=_build_options(options)
    )
    return request.SerializeToString()


def _build_options(options: PluginOptions) -> pb.DevicePluginOptions:
    return pb.DevicePluginOptions(
        pre_start_required=options.pre_start_required,
        get_preferred_allocation_available=options.get_preferred_allocation_available,
    )


def _encode_device(listed: ListedDevice) -> bytes:
    """Return the part of a ``ListAndWatchResponse`` for a device."""
    device = pb.Device(ID=listed.id, health=HEALTHY if listed.healthy else UNHEALTHY)
    for node in listed.numa:
        device.topology.nodes.add(ID=node)
    return pb.ListAndWatchResponse(devices=[device]).SerializeToString()


def _build_container_response(edits: ContainerEdits) -> pb.ContainerAllocateResponse:
    return pb.ContainerAllocateResponse(
        envs=dict(edits.env),
        mounts=[
            pb.Mount(container_path=mount.container_path, host_path=mount.host_path, read_only=mount.read_only)
            for mount in edits.mounts
        ],
        devices=[
            pb.DeviceSpec(container_path=node.container_path, host_path=node.host_path, permissions=node.permissions)
            for node in edits.nodes
        ],
        annotations=dict(edits.annotations),
        cdi_devices=[pb.CDIDevice(name=name) for name in edits.cdi_devices],
    )
