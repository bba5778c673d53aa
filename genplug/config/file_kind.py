"""What a file says that it is: version and kind, looked at before anything else of it is."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.schema import did_you_mean
from genplug.config.yaml_tree import MapNode, ScalarNode

VERSION = "genplug.io/v1alpha1"


class FileKind(StrEnum):
    """The kinds of files that genplug reads."""

    CONFIG = "DevicePluginConfig"
    POLICY = "DevicePluginPolicy"


_FOREIGN: Mapping[FileKind, Mapping[str, str]] = {
    FileKind.CONFIG: {
        "ConfigMap": "the files in it are the configuration: 'genplug validate' reads it so, 'run' its mounted volume",
        FileKind.POLICY: "a policy is no part of the configuration that it bounds: pass its file with --policy",
    },
    FileKind.POLICY: {
        "ConfigMap": "the file in it is the policy: mount the volume, and name the file in it",
        FileKind.CONFIG: "this is a configuration: pass it with --config",
    },
}
"""What else a file can be that was given for one of a kind, and what to do with it."""


def check_kind(trees: Sequence[MapNode], kind: FileKind, problems: Diagnostics) -> bool:
    """Note wrong versions, in every file: one that a later file covers must not go unnoticed; say whether to go on."""
    is_ours = True
    for tree in trees:
        for key, value in (("apiVersion", VERSION), ("kind", kind.value)):
            written = tree.get(key)
            if isinstance(written, ScalarNode) and isinstance(written.value, str) and written.value != value:
                foreign = _FOREIGN[kind].get(written.text, "")
                slip = "" if foreign else did_you_mean(written.text, (value,))
                hint = foreign or slip
                message, width = f"{written.text!r} is not what genplug reads", len(written.text)
                problems.add(
                    ErrorCode.WRONG_VERSION,
                    written.location,
                    message,
                    key_path=key,
                    expected=value,
                    hint=hint,
                    width=width,
                )
                # Another kind altogether: each of its keys would be called unknown.
                is_ours = is_ours and (key == "apiVersion" or bool(slip))
    return is_ours
