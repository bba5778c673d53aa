"""The content of parts of a configuration, which does not depend on their locations in its files. Pure."""

from msgspec import Struct

from genplug.spec.location import SourceLocation
from genplug.struct_values import uncompared_fields


def list_content(value: Struct) -> list[object]:
    """Return the values of the fields of a struct that are its content: those that comparisons regard.

    Locations are left out, and so are compiled patterns, which have no equality; a field beside them has their text.
    """
    names = (
        name for name in value.__struct_fields__ if name != "matches" and name not in uncompared_fields(type(value))
    )
    values = (getattr(value, name) for name in names)
    return [item for item in values if not isinstance(item, SourceLocation)]
