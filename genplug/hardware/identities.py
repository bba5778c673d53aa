"""Which device is which: the identity of a device over time, and over several names of the same hardware. Pure."""

from genplug.hardware.inventory import Device


def is_replugged(previous: Device, current: Device) -> bool:
    """Return whether all device nodes of a device have been replaced: the kernel gave the device other numbers."""
    old = {node.info.numbers for node in previous.nodes}
    return bool(old and current.nodes) and old.isdisjoint(node.info.numbers for node in current.nodes)
