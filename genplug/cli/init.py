"""``genplug init``: a configuration to start from, made of the recipes that ship with genplug."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import add_root
from genplug.cli.output import format_table, print_message

if TYPE_CHECKING:
    from genplug.recipes.catalog import Recipe

DESCRIPTION = """\
Print a configuration to start from, with comments. With KIND, it is the recipe for that kind of hardware. Without KIND,
it combines the recipes that match devices of this machine. The command changes nothing on the machine.
"""
EPILOG = """\
examples:
  genplug init > genplug.yaml              for the devices of this machine
  genplug init --root /host -o genplug.yaml
  genplug init --list                      all kinds of hardware
  genplug init nvidia-gpu

exit codes: 0 success, 1 no recipe matches or FILE cannot be created, 2 usage error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("kind", nargs="?", metavar="KIND", help="kind of hardware; --list shows all kinds")
    parser.add_argument("--list", action="store_true", help="list all kinds of hardware with a recipe")
    add_root(parser)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="file to create (default: '-', stdout)")


def run(arguments: argparse.Namespace) -> int:
    """Print a configuration and return the exit code."""
    from genplug.recipes.catalog import shipped_recipes  # noqa: PLC0415 - --help does not need it

    recipes = shipped_recipes()
    if arguments.list:
        print(format_table(("KIND", "FOR"), [(recipe.kind, recipe.summary) for recipe in recipes.values()]))
        return 0
    if arguments.kind is None:
        return _write_matching(recipes, arguments)
    if arguments.kind not in recipes:
        from genplug.config.schema import did_you_mean  # noqa: PLC0415 - as above

        hint = did_you_mean(arguments.kind, recipes) or "'genplug init --list' lists all recipes"
        print_message("init", f"there is no recipe {arguments.kind!r}: {hint}")
        return 2
    return _write(recipes[arguments.kind].text, arguments.output)


def _write_matching(recipes: "Mapping[str, Recipe]", arguments: argparse.Namespace) -> int:
    """Write a configuration of the recipes that match this machine, and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - as above
    from genplug.hardware.host import Host  # noqa: PLC0415 - as above
    from genplug.recipes.detect import merge_recipes, select_recipes  # noqa: PLC0415 - as above

    with open_root(arguments.root) as root:
        selection = select_recipes(recipes.values(), Host.at(root))
    for kind, error in selection.failed.items():
        print_message("init", f"the recipe {kind} is left out, because it fails on this machine: {error}")
    if not selection.selected:
        print_message(
            "init",
            f"none of the {len(recipes)} recipes matches a device under {arguments.root}. In a container, pass the "
            "directory at which the file system of the host is mounted, for example --root /host. A device without a "
            "loaded driver has no device node. 'genplug init KIND' prints a recipe ('genplug init --list' lists them), "
            "and 'genplug plan --config FILE --explain' shows why it matches nothing",
        )
        return 1
    code = _write(merge_recipes(selection, len(recipes)), arguments.output)
    if code == 0:
        found = ", ".join(f"{selected.recipe.kind} ({selected.remark})" for selected in selection.selected)
        print_message("init", f"found {found}; 'genplug plan --config FILE' shows what a node would offer")
    return code


def _write(text: str, output: str) -> int:
    """Write a text to stdout or to a new file, and return the exit code."""
    if output == "-":
        print(text, end="")
        return 0
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print_message("init", f"-o {output}: the file exists and is not overwritten; use another name, or remove it")
    except OSError as error:
        print_message("init", f"-o {output}: the file cannot be created: {error.strerror}")
    else:
        return 0
    return 1
