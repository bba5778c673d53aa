"""The half of the kubelet stand-in for the tests of drivers of Dynamic Resource Allocation (DRA).

The names in ``__all__`` are the public interface; docs/how-to/test-a-plugin.md describes them. The modules of this
package are internal. The package depends on the generated code of the kubelet's protocols and on no other part of
genplug.
"""

from genplug.testing.dra.driver_client import DriverClient
from genplug.testing.dra.records import DraError, DraRegistration, PodClaim, PreparedDevice, RefusedRegistration
from genplug.testing.dra.stand_in import DraKubelet

__all__ = [
    "DraError",
    "DraKubelet",
    "DraRegistration",
    "DriverClient",
    "PodClaim",
    "PreparedDevice",
    "RefusedRegistration",
]
