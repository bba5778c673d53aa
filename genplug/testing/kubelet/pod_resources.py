"""The kubelet's pod-resources API, from the allocations of the device manager.

Source: docs/internals/kubelet-contract.md §1.3. Every pod is in the namespace ``default``, and in the list from its
admission to its removal. CPUs and memory are always empty, and there is no rate limit. The claims of pods are those
of a :class:`genplug.testing.dra.DraKubelet` that a test connects.
"""

from collections.abc import Callable, Iterable

import grpc

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES
from genplug.testing.kubelet.device_manager import DeviceManager
from genplug.testing.kubelet.records import Allocation

NAMESPACE = "default"
CLAIM_CONTAINER = "main"
"""The container that uses the claims of a pod."""
ClaimUse = tuple[str, str, str, tuple[tuple[str, str, str], ...]]
"""A pod, the namespace and the name of a claim that it uses, and the driver, the pool and the name of its devices."""


def build_pod_resources_handler(
    device_manager: Callable[[], DeviceManager],
    list_claims: Callable[[], Iterable[ClaimUse]] = tuple,
    has_listed_pods: Callable[[], bool] = lambda: True,
) -> grpc.GenericRpcHandler:
    """Return the gRPC handler; the functions return the present device manager and the claims that pods use.

    Until it ``has_listed_pods`` of the API server, a kubelet has none.
    """

    async def list_pods(_request: pb.ListPodResourcesRequest, _context: object) -> pb.ListPodResourcesResponse:
        if not has_listed_pods():
            return pb.ListPodResourcesResponse()
        pods = _build_pods(device_manager().allocations.values())
        return pb.ListPodResourcesResponse(pod_resources=[*pods, *map(_build_claim_pod, list_claims())])

    async def get_allocatable(
        _request: pb.AllocatableResourcesRequest, _context: object
    ) -> pb.AllocatableResourcesResponse:
        manager = device_manager()
        devices = [
            entry
            for resource in manager.resources
            for device_id in sorted(manager.healthy_ids(resource))
            for entry in _build_devices(resource, device_id, manager.numa_nodes(resource, device_id))
        ]
        return pb.AllocatableResourcesResponse(devices=devices)

    async def get_pod(
        request: pb.GetPodResourcesRequest,
        context: grpc.aio.ServicerContext[pb.GetPodResourcesRequest, pb.GetPodResourcesResponse],
    ) -> pb.GetPodResourcesResponse:
        for pod in _build_pods(device_manager().allocations.values()):
            if (pod.name, pod.namespace) == (request.pod_name, request.pod_namespace):
                return pb.GetPodResourcesResponse(pod_resources=pod)
        message = f"pod {request.pod_name} in namespace {request.pod_namespace} not found"
        return await context.abort(grpc.StatusCode.UNKNOWN, message)

    unary = grpc.unary_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        POD_RESOURCES,
        {
            "List": unary(
                list_pods, pb.ListPodResourcesRequest.FromString, pb.ListPodResourcesResponse.SerializeToString
            ),
            "GetAllocatableResources": unary(
                get_allocatable,
                pb.AllocatableResourcesRequest.FromString,
                pb.AllocatableResourcesResponse.SerializeToString,
            ),
            "Get": unary(get_pod, pb.GetPodResourcesRequest.FromString, pb.GetPodResourcesResponse.SerializeToString),
        },
    )


def _build_pods(allocations: Iterable[Allocation]) -> list[pb.PodResources]:
    pods: dict[str, dict[str, list[pb.ContainerDevices]]] = {}
    for allocation in allocations:
        devices = pods.setdefault(allocation.pod, {}).setdefault(allocation.container, [])
        for device_id, numa in zip(allocation.ids, allocation.numa, strict=True):
            devices += _build_devices(allocation.resource, device_id, numa)
    return [
        pb.PodResources(
            name=pod,
            namespace=NAMESPACE,
            containers=[pb.ContainerResources(name=name, devices=devices) for name, devices in containers.items()],
        )
        for pod, containers in pods.items()
    ]


def _build_claim_pod(use: ClaimUse) -> pb.PodResources:
    pod, namespace, claim, devices = use
    claimed = [pb.ClaimResource(driver_name=driver, pool_name=pool, device_name=name) for driver, pool, name in devices]
    resource = pb.DynamicResource(claim_namespace=namespace, claim_name=claim, claim_resources=claimed)
    container = pb.ContainerResources(name=CLAIM_CONTAINER, dynamic_resources=[resource])
    return pb.PodResources(name=pod, namespace=namespace, containers=[container])


def _build_devices(resource: str, device_id: str, numa: tuple[int, ...]) -> list[pb.ContainerDevices]:
    """Return the entries of a device; like the kubelet, an entry for each of its NUMA nodes."""
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
