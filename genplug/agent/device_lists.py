"""Encodes the device lists of offers. Pure."""

from genplug.allocation.offer import ResourceOffer, list_grants
from genplug.kubelet.wire import DeviceList, encode_list
from genplug.spec.replacement import find_replacement


def encode_offer(offer: ResourceOffer, previous: tuple[ResourceOffer, DeviceList] | None = None) -> DeviceList:
    """Return the device list of an offer.

    ``previous`` is an earlier offer with its list: only the grants are encoded that are not identical objects in it.
    """
    if previous is None or previous[0].has_topology != offer.has_topology:
        return encode_list(offer.listed)
    known, encoded = previous
    replaced = find_replacement(known.entries, offer.entries)
    if not replaced:
        return encoded
    new = offer.entries[replaced.start : replaced.new_stop]
    return encoded.replace(replaced.start, replaced.old_stop, list_grants(offer, new), offer.healthy)
