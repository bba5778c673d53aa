"""The figures of a trial, and their limits."""

from collections.abc import Iterable

from msgspec import Struct


class Figure(Struct, frozen=True):
    """A measured figure. ``maximum`` and ``minimum`` are its limits; a figure without them only informs.

    The unit ``s``, ``ms`` or ``%`` marks a figure that depends on the load of the machine.
    """

    name: str
    value: float
    unit: str = ""
    maximum: float | None = None
    minimum: float | None = None

    @property
    def depends_on_load(self) -> bool:
        """Whether a slower machine has a higher value."""
        return self.unit in {"s", "ms", "%"}

    @property
    def limit(self) -> str:
        """The text of the limit, empty without limit."""
        if self.maximum is not None and self.maximum == self.minimum:
            return f"exactly {format_number(self.maximum)} {self.unit}".rstrip()
        if self.maximum is not None:
            return f"at most {format_number(self.maximum)} {self.unit}".rstrip()
        return f"at least {format_number(self.minimum)} {self.unit}".rstrip() if self.minimum is not None else ""

    def __str__(self) -> str:
        limit = f" ({self.limit})" if self.limit else ""
        return f"{self.name}: {self.text}{limit}"

    @property
    def text(self) -> str:
        """The value with its unit."""
        return f"{format_number(self.value)} {self.unit}".rstrip()


def find_misses(figures: Iterable[Figure], slack: float = 1) -> list[str]:
    """Return the text of each figure outside its limits; ``slack`` multiplies the limits of times."""
    misses = []
    for figure in figures:
        factor = slack if figure.depends_on_load else 1
        is_above = figure.maximum is not None and figure.value > figure.maximum * factor
        if is_above or (figure.minimum is not None and figure.value < figure.minimum):
            misses.append(str(figure))
    return misses


def exactly(name: str, value: float, expected: float) -> Figure:
    """Return a count that has a single correct value."""
    return Figure(name, value, maximum=expected, minimum=expected)


def spread(name: str, seconds: Iterable[float], maximum: float) -> list[Figure]:
    """Return the median and the maximum of times in seconds; the limit applies to the maximum."""
    ordered = sorted(seconds)
    return [
        Figure(f"{name}, median", ordered[len(ordered) // 2], "s"),
        Figure(f"{name}, maximum", ordered[-1], "s", maximum),
    ]


def format_number(value: float) -> str:
    """Return a number with at most three significant digits, whole numbers in full."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
