"""Names in the kubelet's protocols that generic gRPC handlers and clients need.

Source: docs/internals/kubelet-contract.md §1.1 to §1.3. There are no generated stubs of the services: clients and
servers use the generic form of gRPC, which passes bytes through.
"""

from typing import Final

API_VERSION: Final = "v1beta1"
"""The required value of ``RegisterRequest.version``."""

HEALTHY: Final = "Healthy"
"""``Device.health`` of a device that can be allocated, in exactly this case."""
UNHEALTHY: Final = "Unhealthy"
"""``Device.health`` of other devices; the kubelet treats any value except ``Healthy`` as unhealthy."""

REGISTRATION: Final = "v1beta1.Registration"
"""Served by the kubelet on kubelet.sock."""
DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"
"""Served by a plugin."""
POD_RESOURCES: Final = "v1.PodResourcesLister"
"""Served by the kubelet on pod-resources/kubelet.sock."""


def method_path(service: str, method: str) -> str:
    """Return the path of a method on the wire, ``/service/method``."""
    return f"/{service}/{method}"
