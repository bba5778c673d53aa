"""Texts of configurations, and short ways to load them and to collect their errors."""

import json
from collections.abc import Callable

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy
from genplug.spec.diagnostic import Diagnostic, DiagnosticCode
from genplug.spec.globs import Glob
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules

CONFIG_HEADER = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
POLICY_HEADER = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"
NAME = "example.com/x"
DEVICES = "devices: [{glob: /dev/x*}]"
"""The devices of a resource whose tests are about other keys."""
PERMISSIVE_POLICY = Policy(
    writable=(Glob.parse("/**"),),
    programs=(Glob.parse("/opt/**"),),
    cdi=("*",),
    annotations=("*",),
    read=parse_read_rules(("/**",)),
    read_env=("*",),
    unix_sockets=(Glob.parse("/**"),),
    http=("0.0.0.0/0", "::/0", "*"),
)
"""Allows the mounts, programs, CDI devices and annotations of the tests; the default policy allows none."""


def render_config(body: str, name: str = NAME) -> str:
    """Return a configuration of one resource; ``body`` is the YAML of its keys."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return f"{CONFIG_HEADER}resources:\n  {name}:\n{lines}"


def render_pre_start(*command: str) -> str:
    """Return the body of a resource that runs a command before a container starts."""
    return f"{DEVICES}\npreStart: {{exec: {{command: {json.dumps(command)}}}, timeoutSeconds: 5}}"


def format_cdi_spec(kind: str, *devices: str) -> str:
    """Return a CDI file that defines devices of a kind."""
    listed = [{"name": device, "containerEdits": {"env": ["A=b"]}} for device in devices]
    return json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": listed})


def load_resource(body: str) -> Resource:
    """Return the resource of a valid body."""
    return load_text(render_config(body), "c.yaml", PERMISSIVE_POLICY).resources[NAME]


def read_policy(body: str) -> Policy:
    """Return the policy of a valid body, from the file ``policy.yaml``."""
    return decode_policy(ConfigFile("policy.yaml", POLICY_HEADER + body))


def collect_diagnostics(call: Callable[[], object]) -> tuple[Diagnostic, ...]:
    """Return the errors with which a call fails; an empty tuple if it succeeds."""
    try:
        call()
    except ConfigInvalidError as error:
        return error.diagnostics
    return ()


def find_diagnostics(text: str, policy: Policy = PERMISSIVE_POLICY) -> tuple[Diagnostic, ...]:
    """Return the errors of a configuration; an empty tuple if it is valid."""
    return collect_diagnostics(lambda: load_text(text, "c.yaml", policy))


def find_codes(body: str) -> list[DiagnosticCode]:
    """Return the codes of the errors of a resource's body."""
    return [diagnostic.code for diagnostic in find_diagnostics(render_config(body))]


def marked_text(diagnostic: Diagnostic) -> str:
    """Return the part of the source line that the carets of an error mark."""
    return diagnostic.line[diagnostic.location.column - 1 :][: diagnostic.width]
