"""``genplug demo``: the options of the demo. ``demo_live.py`` and ``demo_script.py`` run it on ``demo_node.py``."""

import argparse
import importlib
from typing import TYPE_CHECKING

from genplug.cli.grpc_environment import set_grpc_environment
from genplug.cli.output import format_table, print_message, table_width

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genplug.recipes.catalog import Recipe

DESCRIPTION = """\
Try genplug without a cluster, hardware or root. The demo runs the real agent on a simulated node: a temporary directory
with text files that stand for device nodes, and a stand-in for the kubelet. It removes the directory at the end.

With RECIPE, the node has the hardware of a recipe of `genplug init`, and the recipe is its configuration, with probes
that run every 100 ms.
"""
EPILOG = """\
examples:
  genplug demo                     a live table of devices, with commands to try in a second terminal; Ctrl-C ends it
  genplug demo nvidia-gpu          the same with the hardware of a recipe, whose faults a signal causes and ends
  genplug demo --script            a sequence of events, each with its result
  genplug demo nvidia-gpu --script
  genplug demo --list              the recipes

exit codes: 0 success, 1 a step of --script failed, 2 usage error or unknown recipe
"""
_UNKNOWN = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="recipe whose hardware to simulate")
    parser.add_argument("--script", action="store_true", help="play a sequence of events without interaction, and exit")
    parser.add_argument("--list", action="store_true", help="list the recipes and their faults")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    set_grpc_environment()
    from genplug.recipes.catalog import shipped_recipes  # noqa: PLC0415 - --help does not need it

    recipes = shipped_recipes()
    if arguments.list:
        print(_format_recipes(recipes))
        return 0
    recipe = recipes.get(arguments.recipe)
    if arguments.recipe is not None and recipe is None:
        from genplug.config.schema import did_you_mean  # noqa: PLC0415 - as above

        hint = did_you_mean(arguments.recipe, recipes) or "'genplug demo --list' lists all recipes"
        print_message("demo", f"there is no recipe {arguments.recipe!r}; {hint}")
        return _UNKNOWN
    module = "demo_live" if not arguments.script else "demo_script" if recipe is None else "demo_recipe"
    play = importlib.import_module(f"genplug.cli.{module}").play
    return int(play(recipe) if module != "demo_script" else play())


def _format_recipes(recipes: "Mapping[str, Recipe]") -> str:
    from genplug.testing.machines.catalog import select_faults  # noqa: PLC0415 - as above

    rows = [(kind, str(len(select_faults(kind))), recipe.summary) for kind, recipe in recipes.items()]
    return format_table(("RECIPE", "FAULTS", "FOR"), rows, table_width())
