"""Finds the grants of an offer that pods or claims hold by the other API: one API at a time gives a device. Pure."""

import re
from collections.abc import Mapping

from genplug.allocation.offer import ResourceOffer
from genplug.hardware.device_ids import device_of_grant

_TOKEN = re.compile(r"-t[0-9]+\Z")


def find_held_grants(offer: ResourceOffer, users: Mapping[str, str]) -> dict[str, str]:
    """Return who holds grants, by their IDs; ``users`` has the holder of each ID that is in use, as text.

    An ID that the offer does not have is from a former configuration of the resource: it holds all grants of its
    device, and the ID of a token holds the whole resource.
    """
    held = {grant: user for grant, user in users.items() if grant in offer.grants}
    former = {grant: user for grant, user in users.items() if grant not in offer.grants}
    if not former:
        return held
    by_device = {device_of_grant(grant): user for grant, user in former.items()}
    pool_user = next((user for grant, user in former.items() if _TOKEN.search(grant)), None)
    for grant in offer.entries:
        users_of_grant = (by_device.get(health.device.id) for health in grant.devices)
        if (user := next(filter(None, users_of_grant), pool_user)) is not None:
            held.setdefault(grant.id, user)
    return held
