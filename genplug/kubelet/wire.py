"""Encode values as v1beta1 messages.

The encoding of a repeated field is the concatenation of the encodings of its elements. Each device is therefore encoded
when it changes, and a list of 10 000 devices is a join of its parts.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

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


def encode_list(devices: Iterable[ListedDevice]) -> DeviceList:
    """Return a list of devices, in this order."""
    listed = tuple(devices)
    return DeviceList(tuple(map(encode_device, listed)), sum(device.healthy for device in listed))


def encode_device(listed: ListedDevice) -> bytes:
    """Return the part of a ``ListAndWatchResponse`` for a device, whose ID has a character or more.

    Its fields are in the order of their numbers, as protobuf writes them. Messages of protobuf would take three times
    as long, and a start with thousands of devices waits for the parts of all of them.
    """
    name, health = listed.id.encode(), _HEALTHY_FIELD if listed.healthy else _UNHEALTHY_FIELD
    content = (_PREFIXES[len(name)] if len(name) < _LONG else _encode_prefix(len(name))) + name + health
    if listed.numa:
        content += _encode_topology(listed.numa)
    return (_PREFIXES[len(content)] if len(content) < _LONG else _encode_prefix(len(content))) + content


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


def _encode_prefix(size: int) -> bytes:
    """Return the tag and the size of a field with the number 1 whose content has some bytes."""
    encoded = bytearray(b"\n")
    while size >= _LONG:
        encoded.append(size % _LONG + _LONG)
        size //= _LONG
    encoded.append(size)
    return bytes(encoded)


_LONG = 128
"""The first size that takes more than one byte: a byte has seven bits of a number, the lowest first."""
_PREFIXES = tuple(map(_encode_prefix, range(_LONG)))
_HEALTHY_FIELD = pb.Device(health=HEALTHY).SerializeToString()
_UNHEALTHY_FIELD = pb.Device(health=UNHEALTHY).SerializeToString()


@lru_cache(maxsize=1024)
def _encode_topology(numa: tuple[int, ...]) -> bytes:
    device = pb.Device()
    for node in numa:
        device.topology.nodes.add(ID=node)
    return device.SerializeToString()


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
