"""The kubelet's pod-resources API over the remembered allocations (contract 1.3).

Every pod is in the namespace ``default`` and in the list from its admission to its removal; CPUs, memory and DRA
claims are always empty, and calls are not rate-limited.
"""

from collections.abc import Callable, Iterable

import grpc

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES
from genplug.testing.kubelet.device_manager import DeviceManager
from genplug.testing.kubelet.records import Allocation

NAMESPACE = "default"


def build_pod_resources_handler(device_manager: Callable[[], DeviceManager]) -> grpc.GenericRpcHandler:
    """Return the service; ``device_manager`` gives the newest one at each call."""

    async def list_pods(_request: pb.ListPodResourcesRequest, _context: object) -> pb.ListPodResourcesResponse:
        return pb.ListPodResourcesResponse(pod_resources=_build_pods(device_manager().allocations.values()))

    async def allocatable(
        _request: pb.AllocatableResourcesRequest, _context: object
    ) -> pb.AllocatableResourcesResponse:
        now = device_manager()
        devices = [
            part
            for resource in now.resources
            for one in sorted(now.healthy_ids(resource))
            for part in _build_devices(resource, one, now.numa_nodes(resource, one))
        ]
        return pb.AllocatableResourcesResponse(devices=devices)

    async def get(
        request: pb.GetPodResourcesRequest,
        context: grpc.aio.ServicerContext[pb.GetPodResourcesRequest, pb.GetPodResourcesResponse],
    ) -> pb.GetPodResourcesResponse:
        for pod in _build_pods(device_manager().allocations.values()):
            if (pod.name, pod.namespace) == (request.pod_name, request.pod_namespace):
                return pb.GetPodResourcesResponse(pod_resources=pod)
        text = f"pod {request.pod_name} in namespace {request.pod_namespace} not found"
        return await context.abort(grpc.StatusCode.UNKNOWN, text)

    unary = grpc.unary_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        POD_RESOURCES,
        {
            "List": unary(
                list_pods, pb.ListPodResourcesRequest.FromString, pb.ListPodResourcesResponse.SerializeToString
            ),
            "GetAllocatableResources": unary(
                allocatable,
                pb.AllocatableResourcesRequest.FromString,
                pb.AllocatableResourcesResponse.SerializeToString,
            ),
            "Get": unary(get, pb.GetPodResourcesRequest.FromString, pb.GetPodResourcesResponse.SerializeToString),
        },
    )


def _build_pods(allocations: Iterable[Allocation]) -> list[pb.PodResources]:
    pods: dict[str, dict[str, list[pb.ContainerDevices]]] = {}
    for one in allocations:
        devices = pods.setdefault(one.pod, {}).setdefault(one.container, [])
        for device_id, numa in zip(one.ids, one.numa, strict=True):
            devices += _build_devices(one.resource, device_id, numa)
    return [
        pb.PodResources(
            name=pod,
            namespace=NAMESPACE,
            containers=[pb.ContainerResources(name=name, devices=devices) for name, devices in containers.items()],
        )
        for pod, containers in pods.items()
    ]


def _build_devices(resource: str, device_id: str, numa: tuple[int, ...]) -> list[pb.ContainerDevices]:
    """Return the entries of one device: the kubelet makes one for each of its NUMA nodes."""
    if not numa:
        return [pb.ContainerDevices(resource_name=resource, device_ids=[device_id])]
    return [
        pb.ContainerDevices(
            resource_name=resource,
            device_ids=[device_id],
            topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=node)]),
        )
        for node in numa
    ]
