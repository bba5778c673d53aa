"""The recipes: configurations for kinds of hardware that ship with genplug.

Each recipe is a file of ``examples/configs``: comments, then :data:`HEADER`, then resources.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from genplug.spec.natural_sort import natural_sort_key

HEADER = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"

_RESOURCE = re.compile(r"""  (?P<quote>["']?)(?P<name>[^\s"'#][^\s"']*)(?P=quote):(?:\s|$)""")


class Recipe(Struct, frozen=True):
    """A recipe: the kind of hardware, for example ``nvidia-gpu``, and the text of the file."""

    kind: str
    text: str

    @property
    def summary(self) -> str:
        """The first line of the comments: the hardware that the recipe is for."""
        return self.text.partition("\n")[0].removeprefix("#").strip()

    @property
    def comments(self) -> tuple[str, ...]:
        """The lines of the comments at the start of the file."""
        return tuple(self.text.partition(HEADER)[0].splitlines())

    @property
    def resources(self) -> str:
        """The resources, indented by two spaces as under the key ``resources``."""
        return self.text.partition(HEADER)[2]

    def without_resources(self, names: Collection[str]) -> "Recipe":
        """Return the recipe without some of its resources; a comment above a resource belongs to it."""
        kept, block = [], ""
        is_kept = True
        for line in self.resources.splitlines(keepends=True):
            if (found := _RESOURCE.match(line)) is not None:
                is_kept = found["name"] not in names
            elif line.startswith("  #") or not line.strip():
                # The comment of the next resource.
                block += line
                continue
            kept.append(block + line if is_kept else "")
            block = ""
        return replace(self, text=self.text.partition(HEADER)[0] + HEADER + "".join(kept))


def recipe_directory(name: str) -> Path:
    """Return the directory ``configs`` or ``policies``: in the wheel, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "recipes" / name
    return shipped if shipped.is_dir() else package.parent / "examples" / name


def find_recipes(recipes: Iterable[Recipe], words: str) -> list[Recipe]:
    """Return the recipes that contain all words: in kind or summary, else anywhere in the recipe.

    A word matches the start of a word, in any case, and with or without a plural ``s``.
    """
    patterns = [
        re.compile(rf"(?<![a-z0-9]){re.escape(word.lower().removesuffix('s') or word)}") for word in words.split()
    ]
    candidates = list(recipes) if patterns else []
    for text_of in (lambda recipe: f"{recipe.kind} {recipe.summary}", lambda recipe: recipe.text):
        found = [recipe for recipe in candidates if all(each.search(text_of(recipe).lower()) for each in patterns)]
        if found:
            return found
    return []


def shipped_recipes() -> dict[str, Recipe]:
    """Return every recipe by its kind, in natural order."""
    directory = recipe_directory("configs")
    paths = sorted(directory.glob("*.yaml"), key=lambda path: natural_sort_key(path.stem))
    return {path.stem: Recipe(path.stem, path.read_text("utf-8")) for path in paths}
