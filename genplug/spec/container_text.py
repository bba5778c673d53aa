"""Texts that a container gets for its devices: environment variables, with templates in their names, and annotations.

Pure. ``devices`` are the attribute values of each device of the container, in the order of the devices.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from genplug.spec.template import Template, Values, distinct_values, join_texts, merge_values

_NOT_IN_VARIABLE_NAMES = re.compile(r"[^A-Z0-9_-]")


class ContainerText(Struct, frozen=True):
    """The value of an environment variable or annotation.

    By default, ``template`` is rendered once, with the values of all devices. With ``is_each`` it is rendered for each
    device, and the texts are joined by ``separator``, between ``prefix`` and ``suffix``.
    """

    template: Template
    is_each: bool = False
    separator: str = ","
    prefix: str = ""
    suffix: str = ""

    @property
    def text(self) -> str:
        """The texts of the configuration, for their length."""
        return f"{self.prefix}{self.template.text}{self.suffix}"

    def render(self, devices: Sequence[Values]) -> str:
        """Return the text for a container.

        Raises:
            RenderError: an attribute has no value and no default, or the text is too long.
        """
        if not self.is_each:
            return self.template.render(merge_values(devices))
        texts = join_texts(self.separator, [self.template.render(values) for values in devices])
        return f"{self.prefix}{texts}{self.suffix}"


class VariableSpec(Struct, frozen=True):
    """An environment variable of a container (an entry of ``allocate.env``)."""

    name: Template
    value: ContainerText


def sanitize_for_variable_name(text: str) -> str:
    """Return a value for use in the name of an environment variable.

    Upper case, and every character other than letters, digits, ``_`` and ``-`` becomes ``_``. For a resource name this
    is what programs expect: KubeVirt (pkg/util/util.go, ResourceNameToEnvVar) and the SR-IOV device plugin
    (pkg/resources/pool_stub.go, GetEnvs) replace ``.`` and ``/`` in it, and keep ``-``.
    """
    return _NOT_IN_VARIABLE_NAMES.sub("_", text.upper())


def render_variables(specs: Iterable[VariableSpec], devices: Sequence[Values]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each environment variable.

    Devices for which a name renders to the same text share a variable: its value is rendered for these devices.

    Raises:
        RenderError: an attribute has no value and no default, or a text is too long.
    """
    for spec in specs:
        if not spec.name.references:
            yield spec.name.render({}), spec.value.render(devices)
            continue
        by_name: dict[str, list[Values]] = {}
        for values in devices:
            name = spec.name.render(distinct_values(values), sanitize_for_variable_name)
            by_name.setdefault(name, []).append(values)
        for name, members in by_name.items():
            yield name, spec.value.render(members)


def duplicate_name_error(names: Iterable[str]) -> str:
    """Return which name of environment variables occurs twice, as a sentence, or an empty string."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return f"two entries of allocate.env have the name {name}, so one value would be lost"
        seen.add(name)
    return ""
