"""A kubelet stand-in for the tests of device plugins.

The names in ``__all__`` are the public interface; docs/how-to/test-a-plugin.md describes them. The modules of this
package are internal. The package depends on the generated code of the kubelet's protocols and on no other part of
genplug.
"""

from genplug.testing.gate import Gate
from genplug.testing.kubelet.faults import ALL_RESOURCES, FaultInjector
from genplug.testing.kubelet.plugin_client import DialError, PluginClient
from genplug.testing.kubelet.records import (
    AdmissionError,
    Allocation,
    Devices,
    ListedDevice,
    ListMessage,
    NodeStatus,
    RegisterAttempt,
    Registration,
)
from genplug.testing.kubelet.stand_in import KubeletStandIn

__all__ = [
    "ALL_RESOURCES",
    "AdmissionError",
    "Allocation",
    "Devices",
    "DialError",
    "FaultInjector",
    "Gate",
    "KubeletStandIn",
    "ListMessage",
    "ListedDevice",
    "NodeStatus",
    "PluginClient",
    "RegisterAttempt",
    "Registration",
]
