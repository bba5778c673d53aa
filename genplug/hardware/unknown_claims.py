"""Keeps hardware for a resource that may claim it, while a part of that resource has not been scanned. Pure.

An error of a scan must not move a device: a device that a resource loses by the error of its scan would belong to the
next resource in the configuration, under another ID, although a pod may use it under the first ID.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from genplug.hardware.host import printable
from genplug.hardware.identities import Denial, Loss
from genplug.hardware.inventory import PATH_SEPARATOR, Device, ResourceScan
from genplug.hardware.ledger import Contender, Ledger, Owner
from genplug.spec.model import Resource

_PATH_BOUNDARY = re.compile(re.escape(PATH_SEPARATOR) + "(?=/)")
"""Separates the absolute paths in the ``candidate`` of a stall; the name of a file may contain the separator."""


class UnknownClaim(Struct, frozen=True):
    """The ``paths`` that a resource may claim; without ``paths``, it may claim everything that its globs match.

    ``position`` is that of the resource in the configuration.
    """

    resource: Resource
    position: int
    paths: frozenset[str] | None

    def may_cover(self, device: Device) -> bool:
        """Return whether the resource may claim a device; links that only the resource selects are not known."""
        paths = {*device.candidates, *(path for node in device.nodes for path in (node.path, node.info.resolved))}
        if self.paths is not None:
            return not self.paths.isdisjoint(map(printable, paths))
        return any(
            any(glob.matches(path) for glob in source.globs) and not any(glob.matches(path) for glob in source.exclude)
            for source in self.resource.sources
            for path in paths
        )


def find_unknown_claims(
    resources: Mapping[str, Resource], scans: Mapping[str, ResourceScan]
) -> tuple[UnknownClaim, ...]:
    """Return the claims of resources without a scan, and of resources of which a part could not be scanned.

    A search that exceeds a limit is an error of the configuration: it keeps nothing from other resources.
    """
    claims: list[UnknownClaim] = []
    for position, (name, resource) in enumerate(resources.items()):
        scan = scans.get(name)
        if scan is not None and scan.resource is resource and not scan.stalls:
            # Most resources, at each change of a device.
            continue
        stalls = scan.stalls if scan is not None else ()
        if any(stall.is_search_limit for stall in stalls):
            continue
        unknown = [stall for stall in stalls if not stall.is_known]
        is_outdated = scan is None or scan.resource.sources != resource.sources
        if is_outdated or any(not stall.candidate for stall in unknown):
            claims.append(UnknownClaim(resource, position, None))
        elif unknown:
            paths = frozenset(path for stall in unknown for path in _PATH_BOUNDARY.split(stall.candidate))
            claims.append(UnknownClaim(resource, position, paths))
    return tuple(claims)


def deny_unknown_claims(
    contenders: Iterable[Contender], claims: Sequence[UnknownClaim], positions: Mapping[str, int], ledger: Ledger
) -> Mapping[Owner, Denial]:
    """Return the new devices that a resource earlier in the configuration may claim.

    ``positions`` are those of the resources in the configuration. A device that has its hardware keeps it, and so does
    a device that a pod uses.
    """
    denials: dict[Owner, Denial] = {}
    if not claims:
        return denials
    for contender in contenders:
        position = positions[contender.resource.configured_name]
        for claim in claims:
            may_share = claim.resource.overlap and contender.resource.overlap
            if claim.position >= position or may_share or not claim.may_cover(contender.device):
                continue
            if not _has_hardware(contender, ledger):
                other = Owner(claim.resource.configured_name, "")
                denials[contender.owner] = Denial(Loss.UNSCANNED, contender.things[0], other)
            break
    return denials


def _has_hardware(contender: Contender, ledger: Ledger) -> bool:
    holder = ledger.holders.get(contender.owner)
    if holder is not None and holder.things:
        return True
    usage = ledger.usage
    return usage is not None and usage.is_in_use(contender.names, contender.owner.id, is_pool=contender.is_pool)
