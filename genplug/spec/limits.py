"""The limits on what a configuration, a policy and the hardware of a node may make genplug do.

Each limit is checked where the bounded thing is made, before the cost of making it is paid. The text of the error
contains the limit.

``docs/reference/limits.md`` is generated from this module: a comment starts a section, with its heading and the effect
of a limit, and a docstring has the form "what is bounded: the reason".
"""

# Configuration and policy: a file that exceeds a limit is invalid, and the error contains the limit and the location.

MAX_FILE_BYTES = 1 << 20
"""Bytes of a configuration file or policy: the largest ConfigMap that Kubernetes accepts."""

MAX_GLOB_ALTERNATIVES = 1000
"""Globs to which the braces of a glob expand: each of them is searched on its own."""

MAX_GLOB_CHARACTERS = 4096
"""Characters of a glob: no path is longer (PATH_MAX)."""

MAX_EXPANDED_CHARACTERS = 65_536
"""Characters of all globs together to which the braces of a glob expand: they are kept in memory."""

MAX_REGEX_CHARACTERS = 4096
"""Characters of a regular expression, with the attribute values in it: it is compiled at once."""

MAX_REGEX_MEMORY_BYTES = 1 << 18
"""Bytes that RE2 uses for a regular expression: its program, and the states that a search adds to it."""
