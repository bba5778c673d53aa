"""A stand-in for the API server of Kubernetes, for the tests of drivers of Dynamic Resource Allocation (DRA).

The names in ``__all__`` are the public interface; docs/how-to/test-a-dra-driver.md describes them. The modules of this
package are internal. The package depends on h11, and on no other part of genplug.
"""

from genplug.testing.api_server.faults import ApiFaults
from genplug.testing.api_server.records import ApiRequest
from genplug.testing.api_server.stand_in import ApiServerStandIn
from genplug.testing.gate import Gate

__all__ = ["ApiFaults", "ApiRequest", "ApiServerStandIn", "Gate"]
