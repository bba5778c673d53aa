"""The rules of a policy in a request to a worker: a text before the arguments that begins with a NUL character."""

from collections.abc import Iterable

from msgspec import Struct

from genplug.health.workers.protocol import ProbeRequest

_NUL = "\0"


class RequestRules(Struct, frozen=True):
    """The entries of a rule, and the name of the policy for messages."""

    policy: str
    entries: tuple[str, ...]

    def describe_refusal(self, rule: str) -> str:
        """Return which rule refuses something, as a clause that follows "is"."""
        allowed = ", ".join(self.entries) or "nothing"
        return f"refused by '{rule}' of {self.policy}, which allows {allowed}"


def add_rules(request: ProbeRequest, policy: str, entries: Iterable[str]) -> ProbeRequest:
    """Return a request with the rules of a policy."""
    return (request[0], _NUL + _NUL.join((policy, *entries)), *request[1:])


def split_rules(request: ProbeRequest, default: RequestRules) -> tuple[RequestRules, tuple[str, ...]]:
    """Return the rules of a request and its arguments; the default for a request without rules."""
    if len(request) < 2 or not request[1].startswith(_NUL):  # noqa: PLR2004 - a name and rules
        return default, request[1:]
    policy, *entries = request[1][1:].split(_NUL)
    return RequestRules(policy, tuple(entries)), request[2:]
