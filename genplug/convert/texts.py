"""Writes texts of other plugins as globs, templates and conditions of genplug."""

import re
from collections.abc import Sequence

from genplug.spec.globs import escape_glob

_WILDCARD = re.compile(r"[*?\[]")
_HEX = re.compile(r"(?:0[xX])?[0-9A-Fa-f]{1,8}\Z")
_DIRECTORIES = frozenset(
    {"accel", "bsg", "bus", "dri", "dvb", "hidraw", "infiniband", "input", "mapper", "net", "snd", "usb", "v4l", "vfio"}
)
_DEV = "/dev/"
_USB_DIGITS = 4


def escape_condition(text: str) -> str:
    """Return a pattern of a condition that matches exactly a text; braces have no meaning in a condition."""
    return _WILDCARD.sub(lambda match: f"[{match[0]}]", text)


def escape_template(text: str) -> str:
    """Return a template that renders to exactly a text."""
    return text.replace("${", "$${")


def has_wildcard(glob: str) -> bool:
    """Return whether a glob of Go or of genplug matches more than one path."""
    return _WILDCARD.search(glob) is not None


def convert_go_glob(glob: str) -> str:
    """Return a glob of Go (``path.Match``) as a glob of genplug.

    In Go, ``[^a]`` is a negated set, a backslash escapes a character, and braces are literal. genplug cannot escape
    braces, so ``?`` replaces them.
    """
    converted, position = "", 0
    while position < len(glob):
        character = glob[position]
        if character == "\\" and position + 1 < len(glob):
            converted += escape_glob(glob[position + 1])
            position += 1
        elif character in "{}":
            converted += escape_glob(character)
        elif character == "[" and glob[position + 1 : position + 2] == "^":
            converted += "[!"
            position += 1
        else:
            converted += character
        position += 1
    return converted


def is_known_directory(path: str) -> bool:
    """Return whether a path is a directory below /dev on every machine, such as /dev/snd."""
    return path.endswith("/") or (path.startswith(_DEV) and path.removeprefix(_DEV) in _DIRECTORIES)


def convert_id(text: str) -> str | None:
    """Return a vendor or device ID in the form of genplug, ``0x8086``, or None if the text is not an ID."""
    if not _HEX.match(text):
        return None
    return f"0x{text.lower().removeprefix('0x'):0>4}"


def convert_usb_id(text: str) -> str | None:
    """Return a USB ID in the form of genplug, ``0403``, or None if the text is not an ID."""
    digits = text.lower().removeprefix("0x")
    return f"{digits:0>4}" if _HEX.match(text) and len(digits.lstrip("0")) <= _USB_DIGITS else None


def one_or_list(values: Sequence[str]) -> str | list[str]:
    """Return the only value, or a list without repetitions."""
    unique = list(dict.fromkeys(values))
    return unique[0] if len(unique) == 1 else unique
