"""Names in the kubelet's protocols that generic gRPC handlers and clients need.

Sources: docs/internals/kubelet-contract.md §1.1 to §1.3; for drivers of Dynamic Resource Allocation (DRA) the modules
``k8s.io/kubelet`` (pkg/apis) and ``k8s.io/kubernetes`` (pkg/kubelet/cm/dra/plugin). There are no generated stubs of the
services: clients and servers use the generic form of gRPC, which passes bytes through.
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

PLUGIN_REGISTRATION: Final = "pluginregistration.Registration"
"""Served by a DRA driver on its socket in plugins_registry."""
DRA_PLUGIN: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
"""Served by a DRA driver on the socket of its service."""
DRA_PLUGIN_TYPE: Final = "DRAPlugin"
"""``PluginInfo.type`` of a DRA driver."""
DRA_PLUGIN_VERSION: Final = "v1.DRAPlugin"
"""The entry for :data:`DRA_PLUGIN` in ``PluginInfo.supported_versions``."""
DRA_HEALTH: Final = ("v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")
"""The two names of the service with the health of devices, in the order in which a driver lists them.

Both have the same messages. Kubelets up to 1.36 know the second only. The names are those on the wire and the entries
in ``PluginInfo.supported_versions``.
"""


def method_path(service: str, method: str) -> str:
    """Return the path of a method on the wire, ``/service/method``."""
    return f"/{service}/{method}"
