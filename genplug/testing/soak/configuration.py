"""The texts of the configuration and of the policy of the node, and invalid texts of a configuration."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from genplug.testing.soak.model import KEPT_SECONDS, SHORT_GRACE_SECONDS, Configuration, Family

_HEAD: Final = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
CONFIGURATION_VARIABLE: Final = "SOAK_CONFIGURATION"
PROBE_PERIOD_SECONDS: Final = 0.5
PROBE_TIMEOUT_SECONDS: Final = 1

INVALID_TEXTS: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "yaml": _HEAD + "resources: [",
        "schema": _HEAD + "resources: {example.com/plain: {devices: 7, unknown: true}}\n",
        "empty": "",
        "binary": "\x00\x01\x02",
        "no-resources": _HEAD,
        "denied-mount": _HEAD
        + "resources: {example.com/plain: {devices: [{glob: /dev/plain*}], allocate: {mounts: [{hostPath: /etc}]}}}\n",
        "too-large": _HEAD + "# " + "x" * (1 << 20) + "\n",
        "deleted": None,
    }
)
"""Contents of a configuration file that the agent must refuse, by name; None means that the file is deleted."""


def render_policy(program: Path) -> str:
    """Return a policy that allows the program of the ``exec`` probes."""
    return f"apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nexec: {{allow: ['{program}']}}\n"


def render_configuration(configuration: Configuration, families: tuple[Family, ...], program: Path) -> str:
    """Return the text of a valid configuration."""
    lines = [_HEAD + "resources:"]
    for family in families:
        if configuration.has_resource(family):
            lines += _render_resource(configuration, family, program)
    return "\n".join(lines) + "\n"


def _render_resource(configuration: Configuration, family: Family, program: Path) -> list[str]:
    attribute = (
        ", attributes: {model: {path: '/sys/attributes/${name}'}}, where: {model: ok}" if family.has_attribute else ""
    )
    inject = ", inject: cdi" if family.is_injected else ""
    grace = KEPT_SECONDS if family.is_kept else SHORT_GRACE_SECONDS
    lines = [
        f"  {family.resource}:",
        f"    devices: [{{glob: '/dev/{family.claims or family.name}*'{attribute}}}]",
        f"    replicas: {configuration.replicas_of(family)}",
        f"    allocate: {{env: {{{CONFIGURATION_VARIABLE}: '{configuration.number}'}}{inject}}}",
        "    health:",
        f"      removalGracePeriodSeconds: {grace}",
    ]
    checks = {
        "file": "{file: {path: '/sys/filed/${name}', equals: ok}}",
        "fuse": "{file: {path: '/sys/remote/${name}', equals: ok}}",
        "exec": f"{{exec: {{command: ['{program}', '${{name}}']}}}}",
    }
    if family.probe:
        lines += [
            f"      periodSeconds: {PROBE_PERIOD_SECONDS}",
            f"      timeoutSeconds: {PROBE_TIMEOUT_SECONDS}",
            "      failureThreshold: 1",
            "      successThreshold: 1",
            "      onError: unhealthy",
            f"      probes: [{checks[family.probe]}]",
        ]
    return lines
