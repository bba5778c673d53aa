"""PyYAML. Its parser in C uses none of the patterns of the package, which take 8 ms to compile."""

from genplug.lean_imports import postpone_patterns

with postpone_patterns():
    import yaml

__all__ = ["yaml"]
