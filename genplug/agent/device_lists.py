"""Encodes the device lists of offers. Pure."""

from genplug.allocation.offer import ResourceOffer, list_grants
from genplug.kubelet.wire import DeviceList, encode_device, encode_list
from genplug.spec.replacement import find_replacements


def encode_offer(offer: ResourceOffer, previous: tuple[ResourceOffer, DeviceList] | None = None) -> DeviceList:
    """Return the device list of an offer.

    ``previous`` is an earlier offer with its list: only the grants are encoded that are not identical objects in it.
    """
    if previous is None or previous[0].has_topology != offer.has_topology:
        return encode_list(offer.listed)
    known, encoded = previous
    replaced = find_replacements(known.entries, offer.entries)
    if not replaced:
        return encoded
    parts = list(encoded.parts)
    for start, old_stop, new_stop in reversed(replaced):
        parts[start:old_stop] = map(encode_device, list_grants(offer, offer.entries[start:new_stop]))
    return DeviceList(tuple(parts), offer.healthy)
