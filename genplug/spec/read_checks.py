"""The check of a path of a configuration against the files that a policy allows to read, before it is rendered."""

from genplug.spec.policy import Policy
from genplug.spec.read_rules import literal_directory
from genplug.spec.template import Template


def literal_read_error(template: Template, policy: Policy) -> str:
    """Return which rule forbids every path that a template renders to, or an empty string if that is not known yet."""
    first = template.parts[0] if template.parts else ""
    # A path with '..' is an error already.
    if not isinstance(first, str) or not first.startswith("/") or ".." in first.split("/"):
        return ""
    if len(template.parts) == 1 and not template.has_glob:
        return policy.read_error(first)
    directory = literal_directory(first)
    return policy.read_below_error(directory) if directory else ""
