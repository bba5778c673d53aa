"""Finds the grants of an offer that pods or claims hold by the other API: one API at a time gives a device. Pure."""

import re
from collections.abc import Mapping
from typing import TypeVar

from genplug.allocation.offer import ResourceOffer
from genplug.hardware.device_ids import device_of_grant

Holder = TypeVar("Holder")
_TOKEN = re.compile(r"-t[0-9]+\Z")


def find_held_grants(offer: ResourceOffer, users: Mapping[str, Holder]) -> dict[str, Holder]:
    """Return the holders of grants, by their IDs; ``users`` has the holder of each ID that is in use.

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
        if (user := next((user for user in users_of_grant if user is not None), pool_user)) is not None:
            held.setdefault(grant.id, user)
    return held
