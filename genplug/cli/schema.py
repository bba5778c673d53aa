"""``genplug schema``: the JSON Schema of the configuration, for editors and for the values of a chart."""

import argparse

DESCRIPTION = "Print the JSON Schema (draft-07) of the configuration. Editors check and complete with it."
EPILOG = """\
example:
  genplug schema > genplug.schema.json
  # and as the first line of a configuration, for editors with a YAML language server:
  # yaml-language-server: $schema=./genplug.schema.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG


def run(_arguments: argparse.Namespace) -> int:
    """Print the schema."""
    from genplug.config.schema import schema_text  # noqa: PLC0415 - --help needs none of this

    print(schema_text(), end="")
    return 0
