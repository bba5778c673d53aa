"""``genplug schema``: print a JSON Schema that ships with genplug."""

import argparse

SCHEMAS = {
    "config": "genplug.schema.json",
    "policy": "genplug-policy.schema.json",
    "status": "status.schema.json",
    "plan": "plan.schema.json",
    "allocation": "allocation.schema.json",
    "validation": "validation.schema.json",
    "privileges": "privileges.schema.json",
    "record": "record.schema.json",
    "diff": "diff.schema.json",
    "explanation": "explanation.schema.json",
    "pending": "pending.schema.json",
    "refusal": "refusal.schema.json",
    "fleet-status": "fleet-status.schema.json",
    "conversion": "conversion.schema.json",
    "doctor": "doctor.schema.json",
    "audit": "audit.schema.json",
    "audit-report": "audit-report.schema.json",
    "soak": "soak.schema.json",
}
"""The file of each schema, by the name that the command takes."""
DESCRIPTION = """\
Print a JSON Schema (draft-07). `config` and `policy` are the formats of the configuration and of the policy: editors
use them to check and complete a file. The others are the formats of the JSON documents that the commands of genplug and
`kubectl genplug` print. `audit` is the format of a record of the audit log, and `audit-report` that of `genplug audit`.
"""
EPILOG = """\
examples:
  genplug schema > genplug.schema.json
  genplug schema status

An editor with a YAML language server finds the schema if the first line of a configuration is
`# yaml-language-server: $schema=./genplug.schema.json`.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "name", nargs="?", choices=tuple(SCHEMAS), default="config", help="schema to print (default: config)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the schema and return the exit code."""
    from genplug.config.schema import schema_text  # noqa: PLC0415 - --help does not need it

    print(schema_text(SCHEMAS[arguments.name]), end="")
    return 0
