"""Configurations for the tests of this directory, and what loading them comes to."""

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, ErrorCode
from genplug.config.load import load_text
from genplug.spec.globs import Glob
from genplug.spec.model import Resource
from genplug.spec.policy import Policy

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
NAME = "example.com/x"
GENEROUS = Policy(writable=(Glob.parse("/**"),), programs=(Glob.parse("/opt/**"),))
"""Of mounts and programs the default policy has none."""


def resource(body: str, name: str = NAME) -> str:
    """Return a configuration of one resource; ``body`` is its YAML."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return f"{HEAD}resources:\n  {name}:\n{lines}"


def loaded(body: str) -> Resource:
    """Return the resource that a valid body makes."""
    return load_text(resource(body), "c.yaml", GENEROUS).resources[NAME]


def problems(text: str) -> tuple[Diagnostic, ...]:
    """Return what is wrong with a configuration; nothing if it is valid."""
    try:
        load_text(text, "c.yaml", GENEROUS)
    except ConfigInvalidError as error:
        return error.problems
    return ()


def codes(body: str) -> list[ErrorCode]:
    """Return the codes of what is wrong with a body."""
    return [one.code for one in problems(resource(body))]
