"""The command of another device plugin, with placeholders for the paths of a node."""

import re
import shlex
import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PLACEHOLDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "plugins": "the kubelet's directory device-plugins",
        "glob": "a glob that matches all device nodes",
        "devices": "the directory of the device nodes",
        "port": "a free TCP port; genplug then serves HTTP too",
        "kubelet": "the kubelet's directory, for an earlier genplug (--kubelet-dir)",
        "root": "the root of the node, for an earlier genplug (--root)",
        "config": "the directory of genplug's configuration, for an earlier genplug (--config)",
    }
)
"""The name of each placeholder, which a command contains in braces, and its meaning."""

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


def split_command(command: str) -> list[str]:
    """Return the arguments of a command, which may contain placeholders.

    Raises:
        ValueError: the command has an unknown placeholder, an unclosed quote, or no program that exists.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"expected a program with its arguments, found {command!r}: {error}") from error
    if not arguments:
        raise ValueError("expected a program with its arguments, found nothing")
    for name in find_placeholders(arguments):
        if name not in PLACEHOLDERS:
            raise ValueError(
                f"expected a placeholder of {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}, found {{{name}}}; "
                "if the braces belong to the text, start the plugin from a script"
            )
    if shutil.which(arguments[0]) is None:
        raise ValueError(f"expected a program, found {arguments[0]!r}, which is not an executable file")
    return arguments


def find_placeholders(arguments: list[str]) -> frozenset[str]:
    """Return the names of the placeholders in arguments, with unknown names."""
    return frozenset(name for argument in arguments for name in _PLACEHOLDER.findall(argument))


def fill_placeholders(arguments: list[str], values: Mapping[str, object]) -> list[str]:
    """Return arguments with the values of their placeholders; text in other braces is kept."""
    return [_PLACEHOLDER.sub(lambda match: str(values[match[1]]), argument) for argument in arguments]
