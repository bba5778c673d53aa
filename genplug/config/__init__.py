"""Reads configuration and policy files into the values of :mod:`genplug.spec`, with source locations for errors.

docs/reference/configuration.md describes the format. Nothing here knows about hardware or the kubelet.
"""

from genplug.lean_imports import hide_modules

# msgspec uses typing_extensions only if it exists. The module imports inspect, which takes 5 ms of a command.
with hide_modules("typing_extensions"):
    import msgspec  # noqa: F401 - for the modules of this package, which import it without the context
