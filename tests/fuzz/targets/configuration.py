"""Configurations and policies: read, checked, decoded, linted, and their errors formatted."""

import json
from collections.abc import Iterable

from genplug.cli.diagnostic_formats import build_problem, build_sarif, format_github
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, format_diagnostics, summarize_diagnostic
from genplug.config.files import ConfigFile, decode_utf8
from genplug.config.load import load_texts
from genplug.config.policy import decode_policy
from genplug.config.schema import POLICY_SCHEMA, SCHEMA
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.policy import Policy
from tests.fuzz.documents import document_mutator
from tests.fuzz.parts import join_parts, parts_mutator, split_parts
from tests.fuzz.target import Target
from tests.support.configs import CONFIG_HEADER, PERMISSIVE_POLICY, POLICY_HEADER
from tests.support.recipes import CONFIGS, POLICIES

_WORDS = (
    *("apiVersion: genplug.io/v1alpha1\n", "kind: DevicePluginConfig\n", "kind: DevicePluginPolicy\n", "resources:\n"),
    *("devices:", "glob:", "find:", "where:", "exclude:", "attributes:", "allocate:", "health:", "defaults:", "share:"),
    *(
        "${",
        "}",
        "|default:",
        "|or:",
        "- ",
        ": ",
        "\n  ",
        "{",
        "[",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "|\n",
        ">\n",
        "---\n",
        "\t",
    ),
)


def read_text(content: bytes, name: str) -> ConfigFile | None:
    """Return the text of a file, as the loader of files decodes it."""
    diagnostics = Diagnostics()
    text = decode_utf8(content, name, diagnostics)
    assert (text is None) == bool(diagnostics.found)
    check_diagnostics(diagnostics.found)
    return text


def check_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Assert that diagnostics refer to locations that exist, and that every format of them can be printed."""
    found = list(diagnostics)
    for diagnostic in found:
        location = diagnostic.location
        assert location.line >= 1
        assert location.column >= 1
        assert diagnostic.width >= 0
        assert diagnostic.message
        assert summarize_diagnostic(diagnostic).isprintable()
        json.dumps(build_problem(diagnostic))
    for line in format_diagnostics(found).split("\n"):
        assert line.replace("\t", "").isprintable()
    format_github(found).encode("utf-8", "surrogatepass")
    json.dumps(build_sarif(found))


def decode_policy_text(content: bytes) -> Policy | None:
    """Return the policy in a text, or None if it is invalid."""
    text = read_text(content, "policy.yaml")
    if text is None:
        return None
    diagnostics = Diagnostics()
    try:
        policy = decode_policy(text, diagnostics)
    except ConfigInvalidError as error:
        assert error.diagnostics
        check_diagnostics(error.diagnostics)
        return None
    check_diagnostics(diagnostics.warnings)
    return policy


def run_configuration(content: bytes) -> None:
    """Load up to two files of a configuration, under a policy if there is a third text."""
    *files, policy_text = split_parts(content, 3)
    policy = decode_policy_text(policy_text) if policy_text else PERMISSIVE_POLICY
    texts = [read_text(file, f"{number}.yaml") for number, file in enumerate(files) if file or number == 0]
    try:
        config = load_texts([text for text in texts if text is not None], policy)
    except ConfigInvalidError as error:
        assert error.diagnostics or None in texts
        check_diagnostics(error.diagnostics)
    else:
        check_diagnostics(config.warnings)
        assert len(config.resources) <= 1000


def run_policy(content: bytes) -> None:
    policy = decode_policy_text(content)
    if policy is not None:
        for path in ("/dev/x", "/dev/mem", "/", ""):
            policy.device_error(path)
            policy.mount_error(path, read_only=False)
            policy.exec_error(path)


def list_configurations() -> list[bytes]:
    recipes = [path.read_bytes() for path in sorted(CONFIGS.iterdir())]
    policies = {path.name: path.read_bytes() for path in sorted(POLICIES.iterdir())}
    pairs = [join_parts((CONFIGS / name).read_bytes(), b"", text) for name, text in policies.items()]
    overlay = f"{CONFIG_HEADER}resources: {{example.com/x: {{share: {{replicas: 2}}}}}}".encode()
    base = f"{CONFIG_HEADER}resources: {{example.com/x: {{devices: [{{glob: /dev/x*}}]}}}}".encode()
    return [*recipes, *pairs, join_parts(base, overlay), CONFIG_HEADER.encode(), b"", b"\xff"]


def list_policies() -> list[bytes]:
    return [*(path.read_bytes() for path in sorted(POLICIES.iterdir())), POLICY_HEADER.encode()]


TARGETS = (
    Target(
        "configuration",
        "configurations, with policies",
        run_configuration,
        list_configurations,
        words=_WORDS,
        max_bytes=16384,
        mutate=parts_mutator(
            document_mutator((SCHEMA,)), document_mutator((SCHEMA,)), document_mutator((POLICY_SCHEMA,))
        ),
        share=6,
        short_runs=300,
    ),
    Target(
        "policy",
        "policies",
        run_policy,
        list_policies,
        words=_WORDS,
        mutate=document_mutator((POLICY_SCHEMA,)),
        share=2,
        short_runs=500,
    ),
)
