"""Reads configuration and policy files into the values of :mod:`genplug.spec`, with source locations for errors.

docs/reference/configuration.md describes the format. Nothing here knows about hardware or the kubelet.
"""

from genplug.lean_imports import hide_modules, replace_modules

# msgspec uses typing_extensions, and uuid its accelerator, only if they exist. The first imports inspect, which takes
# 5 ms of a command. No value of genplug has a type of decimal.
with hide_modules("typing_extensions", "_uuid"), replace_modules("decimal", "msgspec.inspect"):
    import msgspec  # noqa: F401 - for the modules of this package, which import it without the context
