"""The names of the built-in attributes, for the decoder of the configuration.

The attribute families are imported for a name that only a family can have: ``genplug validate`` of a configuration that
uses only ``${path}``, for example, does not import them.
"""

from genplug.spec.names import CANDIDATE_ATTRIBUTES, ENVIRONMENT_PREFIX, FILE_PREFIX, NODE_NAME

_WITHOUT_FAMILY = (*CANDIDATE_ATTRIBUTES, NODE_NAME)


def list_known_attributes() -> tuple[str, ...]:
    """Return the names of all built-in attributes, those with a prefix excepted."""
    from genplug.hardware.attributes import KNOWN_ATTRIBUTES  # noqa: PLC0415 - see above

    return KNOWN_ATTRIBUTES


def is_known_attribute(name: str) -> bool:
    """Return whether a name is that of a built-in attribute."""
    if name.startswith((FILE_PREFIX, ENVIRONMENT_PREFIX)):
        return len(name.partition(".")[2]) > 0
    return name in _WITHOUT_FAMILY or name in list_known_attributes()


def needs_sysfs(name: str) -> bool:
    """Return whether an attribute is read from the device's directory in /sys."""
    if name.startswith(FILE_PREFIX):
        return True
    if name in _WITHOUT_FAMILY:
        return False
    from genplug.hardware.attributes import ATTRIBUTES  # noqa: PLC0415 - see above

    return name in ATTRIBUTES
