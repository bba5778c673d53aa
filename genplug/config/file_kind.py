"""Checks apiVersion and kind of a file before anything else in it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from genplug.config.diagnostics import Diagnostics
from genplug.config.schema import did_you_mean
from genplug.config.yaml_tree import MapNode, ScalarNode
from genplug.spec.diagnostic import ErrorCode

VERSION = "genplug.io/v1alpha1"


class FileKind(StrEnum):
    """The ``kind`` of the files that genplug reads."""

    CONFIG = "DevicePluginConfig"
    POLICY = "DevicePluginPolicy"


_FOREIGN: Mapping[FileKind, Mapping[str, str]] = {
    FileKind.CONFIG: {
        "ConfigMap": "the configuration is in its data: 'validate' reads the manifest, 'run' the mounted volume",
        FileKind.POLICY: "a policy is not part of the configuration that it limits: pass its file with --policy",
    },
    FileKind.POLICY: {
        "ConfigMap": "the policy is in its data: mount it as a volume and pass the path of the file",
        FileKind.CONFIG: "this is a configuration: pass it with --config",
    },
}
"""Hints by expected kind and found kind."""
_OTHER_KIND = {
    FileKind.CONFIG: f"the kind of a policy is {FileKind.POLICY}",
    FileKind.POLICY: f"the kind of a configuration is {FileKind.CONFIG}",
}
"""Hints by expected kind, for a kind that is not known."""


def check_kind(trees: Sequence[MapNode], kind: FileKind, diagnostics: Diagnostics) -> bool:
    """Record wrong versions and kinds in all files; return whether decoding should continue.

    Every file is checked, since a later file would hide the version of an earlier one.
    """
    is_ours = True
    for tree in trees:
        for key, value in (("apiVersion", VERSION), ("kind", kind.value)):
            written = tree.get(key)
            if isinstance(written, ScalarNode) and isinstance(written.value, str) and written.value != value:
                foreign = _FOREIGN[kind].get(written.text, "")
                slip = "" if foreign else did_you_mean(written.text, (value,))
                other = did_you_mean(written.text, tuple(FileKind)) or _OTHER_KIND[kind] if key == "kind" else ""
                hint = foreign or slip or other
                message, width = f"{written.text!r} is not supported", len(written.text)
                diagnostics.add(
                    ErrorCode.WRONG_VERSION,
                    written.location,
                    message,
                    key_path=key,
                    expected=value,
                    hint=hint,
                    width=width,
                )
                # Stop at a foreign kind: each of its keys would be reported as unknown.
                is_ours = is_ours and (key == "apiVersion" or bool(slip))
    return is_ours
