"""``genplug init``: a configuration to start from, made of the recipes that are shipped."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from genplug.cli.options import add_root

if TYPE_CHECKING:
    from genplug.hardware.host import Host
    from genplug.hardware.inventory import Device
    from genplug.recipes.catalog import Recipe

DESCRIPTION = """\
Print a configuration to start from, with comments. With KIND, the recipe for that kind of hardware. Without, it looks
at this machine with every recipe and puts those together that find something. Nothing is changed.
"""
EPILOG = """\
examples:
  genplug init > genplug.yaml              for what this machine has
  genplug init --root /host -o genplug.yaml
  genplug init --list                      every KIND, and what it is for
  genplug init nvidia-gpu

exit codes: 0 fine, 1 nothing was found, or FILE exists, 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("kind", nargs="?", metavar="KIND", help="a kind of hardware, as --list names it")
    parser.add_argument("--list", action="store_true", help="list every KIND and what it is for")
    add_root(parser)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="write it here (default: '-', stdout)")


def run(arguments: argparse.Namespace) -> int:
    """Print a configuration and return the exit code."""
    from genplug.cli.tables import table  # noqa: PLC0415 - as above
    from genplug.recipes.catalog import shipped_recipes  # noqa: PLC0415 - --help needs none of this

    recipes = shipped_recipes()
    if arguments.list:
        print(table(("KIND", "FOR"), [(one.kind, one.summary) for one in recipes.values()]))
        return 0
    if arguments.kind is None:
        return _for_what_is_here(recipes.values(), arguments)
    if arguments.kind not in recipes:
        from genplug.config.schema import did_you_mean  # noqa: PLC0415 - as above

        hint = did_you_mean(arguments.kind, recipes) or "'genplug init --list' names those that there are"
        _say(f"there is no recipe {arguments.kind!r}: {hint}")
        return 2
    return _written(recipes[arguments.kind].text, arguments.output)


def _for_what_is_here(recipes: "Collection[Recipe]", arguments: argparse.Namespace) -> int:
    from genplug.capture.archive import open_root  # noqa: PLC0415 - see run
    from genplug.hardware.host import Host  # noqa: PLC0415 - see run

    with open_root(arguments.root) as root:
        choice = select_recipes(recipes, Host.at(root))
    if not choice.taken:
        _say(
            f"none of the {len(recipes)} recipes finds anything under {arguments.root}. In a container the host's /dev "
            "and /sys are elsewhere: say --root /host. A device whose driver is not loaded has no node yet. "
            "'genplug init --list' names the recipes, 'genplug init KIND' prints one, and 'genplug plan --config FILE "
            "--explain' says why it finds nothing"
        )
        return 1
    code = _written(merge_recipes(choice, len(recipes)), arguments.output)
    if code == 0:
        found = ", ".join(f"{one.recipe.kind} ({one.note})" for one in choice.taken)
        _say(f"found {found}; 'genplug plan --config FILE' shows what it offers")
    return code


class Taken(NamedTuple):
    """A recipe that finds something: what, and what is to be known of it, as one line."""

    recipe: "Recipe"
    note: str


class Choice(NamedTuple):
    """The recipes for a machine; ``left_out`` says by kind why others that find something are not among them."""

    taken: list[Taken]
    left_out: dict[str, str]


def select_recipes(recipes: "Collection[Recipe]", host: "Host") -> Choice:
    """Return the recipes that find devices which no recipe before them has."""
    from genplug.config.load import load_text  # noqa: PLC0415 - see run
    from genplug.hardware.discovery import discover  # noqa: PLC0415 - see run
    from genplug.spec.globs import Glob  # noqa: PLC0415 - see run
    from genplug.spec.policy import Policy  # noqa: PLC0415 - see run

    everything = (Glob.parse("/**"),)
    allowing = Policy(allow=everything, block=True, mounts=everything, writable=everything, programs=everything)
    choice = Choice([], {})
    owners: dict[object, tuple[str, bool]] = {}
    names: dict[str, str] = {}
    for recipe in recipes:
        try:
            config = load_text(recipe.text, f"{recipe.kind}.yaml", allowing)
            inventory = discover(config, host)
        except Exception as error:  # noqa: BLE001 - one that fails on odd hardware must not cost the others
            _say(f"without the recipe {recipe.kind}, which fails here: {error}")
            continue
        devices = [one for found in inventory.devices.values() for one in found]
        overlaps = {name: one.overlap for name, one in inventory.resources.items()}
        lost = {one.id: rival for one in devices if (rival := _rival(one, owners, may_overlap=overlaps[one.resource]))}
        if not devices:
            continue
        if rivals := {names[name] for name in config.resources if name in names}:
            choice.left_out[recipe.kind] = f"its resources are called as those of {_listed(rivals)}"
        elif len(lost) == len(devices):
            choice.left_out[recipe.kind] = f"its devices are those of {_listed(set(lost.values()))}"
        else:
            note = _counted(devices)
            if lost:
                note += f", {len(lost)} of them in {_listed(set(lost.values()))} too: exclude from one what both have"
            if _needs_a_policy(recipe, host, len(devices)):
                note += "; it asks for what only a policy allows, as its comments say"
            choice.taken.append(Taken(recipe, note))
            names |= dict.fromkeys(config.resources, recipe.kind)
            for one in devices:
                for identity in _identities(one):
                    owners.setdefault(identity, (recipe.kind, overlaps[one.resource]))
    return choice


def _rival(device: "Device", owners: dict[object, tuple[str, bool]], *, may_overlap: bool) -> str:
    """Return which recipe has a node of a device already; empty if none that minds."""
    found = (owners[one] for one in _identities(device) if one in owners)
    return next((kind for kind, overlaps in found if not (overlaps and may_overlap)), "")


def _identities(device: "Device") -> list[object]:
    return [node.info.numbers for node in device.nodes] or list(device.candidates)


def _needs_a_policy(recipe: "Recipe", host: "Host", found: int) -> bool:
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - see run
    from genplug.config.load import load_text  # noqa: PLC0415 - see run
    from genplug.hardware.discovery import discover  # noqa: PLC0415 - see run

    try:
        inventory = discover(load_text(recipe.text, recipe.kind), host)
    except ConfigInvalidError:
        return True
    return sum(map(len, inventory.devices.values())) < found


def merge_recipes(choice: Choice, number: int) -> str:
    """Return one configuration with the resources of all recipes that were taken, under their comments."""
    from genplug.recipes.catalog import HEADER  # noqa: PLC0415 - see run

    lines = [f"# Made by 'genplug init', which looked at this machine with {number} recipes. It found:"]
    lines += [f"#   {one.recipe.kind}: {one.note}" for one in choice.taken]
    if choice.left_out:
        lines.append("# Left out, for a device belongs to one resource ('genplug init KIND' prints them):")
        lines += [f"#   {kind}: {reason}" for kind, reason in choice.left_out.items()]
    lines += ["#", "# 'genplug validate' checks this file, 'genplug plan' shows what it offers. It is yours to edit."]
    parts = []
    for recipe, _ in choice.taken:
        comments = "".join(f"  {line}".rstrip() + "\n" for line in recipe.comments)
        parts.append(comments + recipe.resources.strip("\n") + "\n")
    return "\n".join(lines) + "\n" + HEADER + "\n".join(parts)


def _written(text: str, output: str) -> int:
    if output == "-":
        print(text, end="")
        return 0
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _say(f"-o {output}: it exists, and somebody may have edited it: give another name, or remove it first")
    except OSError as error:
        _say(f"-o {output}: it cannot be written: {error.strerror}")
    else:
        return 0
    return 1


def _counted(devices: "Collection[Device]") -> str:
    return f"{len(devices)} device{'' if len(devices) == 1 else 's'}"


def _listed(kinds: Collection[str]) -> str:
    return " and ".join(sorted(kinds))


def _say(text: str) -> None:
    print(f"genplug init: {text}", file=sys.stderr)
