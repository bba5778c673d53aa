"""The names of the kubelet's protocols that generic gRPC handlers and clients need (contract 1.1 to 1.3).

There are no generated stubs for the services: both sides use gRPC's generic form, which passes ready bytes through.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

API_VERSION: Final = "v1beta1"
"""What ``RegisterRequest.version`` must say."""

HEALTHY: Final = "Healthy"
"""``Device.health`` of a device that may be handed out, in exactly this case."""
UNHEALTHY: Final = "Unhealthy"
"""What plugins say otherwise; to the kubelet anything but ``Healthy`` is unhealthy."""

REGISTRATION: Final = "v1beta1.Registration"
"""Served by the kubelet on kubelet.sock."""
DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"
"""Served by a plugin."""
POD_RESOURCES: Final = "v1.PodResourcesLister"
"""Served by the kubelet on pod-resources/kubelet.sock."""
PLUGIN_REGISTRATION: Final = "pluginregistration.Registration"
"""Served by a plugin in plugins_registry; another service than ``REGISTRATION``."""

DEVICE_PLUGIN_TYPE: Final = "DevicePlugin"
"""``PluginInfo.type`` of a device plugin."""

METHODS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        REGISTRATION: ("Register",),
        DEVICE_PLUGIN: (
            "GetDevicePluginOptions",
            "ListAndWatch",
            "GetPreferredAllocation",
            "Allocate",
            "PreStartContainer",
        ),
        POD_RESOURCES: ("List", "GetAllocatableResources", "Get"),
        PLUGIN_REGISTRATION: ("GetInfo", "NotifyRegistrationStatus"),
    }
)
"""Every call of every service, by its short name."""


def method_path(service: str, method: str) -> str:
    """Return the path that a call has on the wire."""
    return f"/{service}/{method}"
