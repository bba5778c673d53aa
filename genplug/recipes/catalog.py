"""The recipes: configurations for kinds of hardware that ship with genplug.

Each recipe is a file of ``examples/configs``: comments, then :data:`HEADER`, then resources.
"""

from pathlib import Path

from attrs import frozen

from genplug.spec.natural_sort import natural_sort_key

HEADER = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"


@frozen
class Recipe:
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


def shipped_recipes() -> dict[str, Recipe]:
    """Return every recipe by its kind, in natural order; they are in the wheel, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "recipes" / "configs"
    directory = shipped if shipped.is_dir() else package.parent / "examples" / "configs"
    paths = sorted(directory.glob("*.yaml"), key=lambda path: natural_sort_key(path.stem))
    return {path.stem: Recipe(path.stem, path.read_text("utf-8")) for path in paths}
