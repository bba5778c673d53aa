"""The recipes: configurations for kinds of hardware that are shipped with the program, by the name of their kind.

Each is a file of ``examples/configs``: comments, then :data:`HEADER`, then resources until its end.
"""

from pathlib import Path

from attrs import frozen

from genplug.spec.natural_sort import natural_sort_key

HEADER = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"


@frozen
class Recipe:
    """A recipe: the kind of hardware that it is for (``nvidia-gpu``), and its file's text."""

    kind: str
    text: str

    @property
    def summary(self) -> str:
        """The first line of its comments."""
        return self.text.partition("\n")[0].removeprefix("#").strip()

    @property
    def comments(self) -> tuple[str, ...]:
        """The lines of comments that it begins with."""
        return tuple(self.text.partition(HEADER)[0].splitlines())

    @property
    def resources(self) -> str:
        """Its resources, indented by two spaces, as under ``resources``."""
        return self.text.partition(HEADER)[2]


def shipped_recipes() -> dict[str, Recipe]:
    """Return every recipe by its kind, in natural order: in the wheel beside this package, in a checkout at its top."""
    package = Path(__file__).parents[1]
    shipped = package / "recipes" / "configs"
    directory = shipped if shipped.is_dir() else package.parent / "examples" / "configs"
    paths = sorted(directory.glob("*.yaml"), key=lambda path: natural_sort_key(path.stem))
    return {path.stem: Recipe(path.stem, path.read_text("utf-8")) for path in paths}
