"""``genplug init``: a configuration to start from, made of the recipes that ship with genplug."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import add_root
from genplug.cli.output import format_table, format_yaml, print_message, table_width

if TYPE_CHECKING:
    from genplug.recipes.catalog import Recipe

DESCRIPTION = """\
Print a configuration to start from, with comments. With KIND, it is the recipe for that kind of hardware; several kinds
are combined. Without KIND, it combines the recipes that match devices of this machine. With --policy, print the policy
that allows them instead. The command changes nothing on the machine.
"""
EPILOG = """\
examples:
  genplug init > genplug.yaml              for the devices of this machine
  genplug init --root /host -o genplug.yaml
  genplug init --list                      all kinds of hardware
  genplug init --list nvidia               those with this word in name or description
  genplug init gpu                         recipes with this word in name or description
  genplug init nvidia-gpu > genplug.yaml
  genplug init nvidia-gpu --policy -o policy.yaml
  genplug init nvidia-gpu infiniband       one configuration for both

exit codes: 0 success, 1 no recipe matches or FILE cannot be created, 2 usage error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="kinds of hardware; --list shows all kinds")
    parser.add_argument("--list", action="store_true", help="list all kinds of hardware with a recipe")
    parser.add_argument("--policy", action="store_true", help="print the policy that allows the configuration")
    add_root(parser)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="file to create (default: '-', stdout)")


def run(arguments: argparse.Namespace) -> int:
    """Print a configuration and return the exit code."""
    from genplug.recipes.catalog import shipped_recipes  # noqa: PLC0415 - --help does not need it

    recipes = shipped_recipes()
    if arguments.list:
        return _print_list(recipes, " ".join(arguments.kinds))
    if not arguments.kinds:
        return _write_matching(recipes, arguments)
    if unknown := [kind for kind in arguments.kinds if kind not in recipes]:
        _print_unknown(" ".join(unknown), recipes)
        return 2
    chosen = [recipes[kind] for kind in dict.fromkeys(arguments.kinds)]
    return _write_policy(chosen, arguments.output) if arguments.policy else _write_chosen(chosen, arguments.output)


def _print_list(recipes: "Mapping[str, Recipe]", words: str) -> int:
    """Print the recipes, with words only those that mention them, and return the exit code."""
    from genplug.recipes.catalog import find_recipes  # noqa: PLC0415 - as in run

    found = find_recipes(recipes.values(), words) if words else list(recipes.values())
    if not found:
        _print_unknown(words, recipes)
        return 2
    print(format_table(("KIND", "FOR"), [(recipe.kind, recipe.summary) for recipe in found], table_width()))
    return 0


def _write_chosen(chosen: "Sequence[Recipe]", output: str) -> int:
    """Write the chosen recipes as one configuration, and return the exit code."""
    from genplug.recipes.detect import combine_recipes  # noqa: PLC0415 - as in run

    try:
        text = chosen[0].text if len(chosen) == 1 else combine_recipes(chosen)
    except ValueError as error:
        print_message("init", f"{error}: print one of the two recipes, and rename the resource in it")
        return 2
    code = _write(text, output)
    if code == 0:
        _print_policy_advice(chosen, f"genplug init {' '.join(recipe.kind for recipe in chosen)} --policy")
    return code


def _print_unknown(kind: str, recipes: "Mapping[str, Recipe]") -> None:
    """Print the recipes with the words of an unknown kind in their text, or a similar kind."""
    from genplug.config.schema import did_you_mean  # noqa: PLC0415 - as in run
    from genplug.recipes.catalog import find_recipes  # noqa: PLC0415 - as in run

    if found := find_recipes(recipes.values(), kind):
        print_message("init", f"there is no recipe {kind!r}, but recipes that mention it:")
        table = format_table(("KIND", "FOR"), [(recipe.kind, recipe.summary) for recipe in found], table_width())
        print(table, file=sys.stderr)
        return
    hint = did_you_mean(kind, recipes) or "'genplug init --list' lists all recipes"
    print_message("init", f"there is no recipe {kind!r}: {hint}")


def _write_policy(recipes: "Sequence[Recipe]", output: str) -> int:
    """Write a policy that allows these recipes and nothing else, and return the exit code."""
    from genplug.recipes.policies import find_policy_text, make_policy, merge_policies  # noqa: PLC0415 - as in run

    kinds = ", ".join(recipe.kind for recipe in recipes)
    text = find_policy_text(recipes[0]) if len(recipes) == 1 else ""
    if not text:
        policy = merge_policies(make_policy(recipe) for recipe in recipes)
        needs_policy = any(map(find_policy_text, recipes))
        text = f"# Generated by 'genplug init --policy': what the recipes {kinds} may do on a node, and nothing else.\n"
        if not needs_policy:
            text += "# The default policy allows them too.\n"
        text += format_yaml(policy)
    code = _write(text, output)
    if code == 0:
        file = "FILE" if output == "-" else output
        print_message("init", f"policy for {kinds}; pass it to validate, plan and run: --policy {file}")
    return code


def _print_policy_advice(recipes: "Sequence[Recipe]", command: str) -> None:
    """Print the command for the policy, if the default policy does not allow a recipe."""
    from genplug.recipes.policies import find_policy_text  # noqa: PLC0415 - as in run

    if kinds := [recipe.kind for recipe in recipes if find_policy_text(recipe)]:
        print_message(
            "init",
            f"the default policy does not allow {', '.join(kinds)}: '{command} -o policy.yaml' writes a policy that "
            "does; pass '--policy policy.yaml' to validate, plan and run",
        )


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
    chosen = [selected.recipe for selected in selection.selected]
    if arguments.policy:
        return _write_policy(chosen, arguments.output)
    code = _write(merge_recipes(selection, len(recipes)), arguments.output)
    if code == 0:
        flag = "" if str(arguments.root) == "/" else f" --root {arguments.root}"
        _print_policy_advice(chosen, f"genplug init{flag} --policy")
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
