"""v1beta1 messages from our values, as bytes.

A message of repeated fields is the concatenation of its parts, so each device's part of a list is serialized once and
kept: a list of 10 000 devices is a join of ready bytes.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.results import ListedDevice, PluginOptions
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import API_VERSION, HEALTHY, UNHEALTHY


def encode_list(listed: Iterable[ListedDevice]) -> bytes:
    """Return a ``ListAndWatchResponse``."""
    return b"".join(map(_listed_part, listed))


def encode_allocate_response(containers: Iterable[ContainerEdits]) -> bytes:
    """Return an ``AllocateResponse`` with one container response each, in order."""
    response = pb.AllocateResponse(container_responses=[_container(edits) for edits in containers])
    return response.SerializeToString(deterministic=True)


def encode_preferred_response(containers: Iterable[Sequence[str]]) -> bytes:
    """Return a ``PreferredAllocationResponse`` with one set of IDs each, in order."""
    parts = [pb.ContainerPreferredAllocationResponse(deviceIDs=ids) for ids in containers]
    return pb.PreferredAllocationResponse(container_responses=parts).SerializeToString()


def encode_options(options: PluginOptions) -> bytes:
    """Return the ``DevicePluginOptions`` of an endpoint."""
    return _options(options).SerializeToString()


def encode_register_request(resource: str, socket: str, options: PluginOptions) -> bytes:
    """Return a ``RegisterRequest``; it carries the options too, for kubelets <= 1.24 (contract 2.1)."""
    request = pb.RegisterRequest(
        version=API_VERSION, endpoint=socket, resource_name=resource, options=_options(options)
    )
    return request.SerializeToString()


def _options(options: PluginOptions) -> pb.DevicePluginOptions:
    return pb.DevicePluginOptions(
        pre_start_required=options.pre_start_required,
        get_preferred_allocation_available=options.get_preferred_allocation_available,
    )


@lru_cache(maxsize=1 << 16)
def _listed_part(listed: ListedDevice) -> bytes:
    device = pb.Device(ID=listed.id, health=HEALTHY if listed.healthy else UNHEALTHY)
    for node in listed.numa:
        device.topology.nodes.add(ID=node)
    return pb.ListAndWatchResponse(devices=[device]).SerializeToString()


def _container(edits: ContainerEdits) -> pb.ContainerAllocateResponse:
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
