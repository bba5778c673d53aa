"""The records of requests."""

from msgspec import Struct


class ApiRequest(Struct, frozen=True):
    """A request that was answered.

    ``verb`` is as in a Role: ``get``, ``list``, ``watch``, ``create``, ``update``, ``delete`` or
    ``deletecollection``. ``name`` is the name of the object, also of an object that was created. ``at`` is the time of
    the answer, by ``time.monotonic()``. ``code`` is 0 if the connection ended without an answer.
    """

    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    at: float
    user_agent: str = ""
