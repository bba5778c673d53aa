"""Texts with a meaning inside: templates, globs and selectors, each read with its mistakes noted where they stand."""

import json
from collections.abc import Iterator, Sequence

from attrs import frozen

from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.schema import did_you_mean
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode, to_python
from genplug.spec.globs import Glob, GlobError, expand_braces
from genplug.spec.location import SourceLocation
from genplug.spec.names import ENVIRONMENT_PREFIX, KNOWN_ATTRIBUTES, SLICE, is_known_attribute
from genplug.spec.regex import Pattern, PatternError, compile_regex
from genplug.spec.selectors import Condition, Selector, normalize, parse_quantity
from genplug.spec.template import Reference, Template, TemplateError

_LISTED = "docs/reference/configuration.md lists them; define your own under the source's 'attributes'"
_LONG_PATH = "/x" * 16
_PATHS = ("path", "target", "sysfs")
"""What the attributes will be is not known at load; that these are absolute paths is."""


@frozen
class ValueDecoder:
    """A reader of texts.

    ``own`` are the names of the configuration's own attributes in the place that is read.
    """

    problems: Diagnostics
    own: frozenset[str] = frozenset()

    def template(self, node: Node | None, where: str) -> Template | None:
        """Read a template; None where there is no text, or a mistake in it."""
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        try:
            template = Template.parse(node.value)
        except TemplateError as error:
            location = node.at(error.offset)
            self.problems.add(ErrorCode.TEMPLATE, location, str(error), key_path=where, hint=error.hint)
            return None
        for reference in template.references:
            self._check_attribute(reference.name, node.at(reference.offset), where)
        return template

    def path(self, node: Node | None, where: str, *, is_glob: bool = False) -> Template | None:
        """Read a template that makes an absolute path, or a glob over such paths."""
        template = self.template(node, where)
        # An empty text has been refused by the schema.
        if template is None or not isinstance(node, ScalarNode) or not node.text:
            return None
        sample = template.render({name: self._sample(name, template.parts) for name in template.names})
        width = len(node.text)
        if not sample.startswith("/"):
            message = f"{node.text!r} is not an absolute path"
            self.problems.add(
                ErrorCode.PATH, node.at(0), message, key_path=where, hint="begin it with '/'", width=width
            )
        elif ".." in sample.split("/"):
            message, hint = f"{node.text!r} climbs with '..'", "write the path without it"
            self.problems.add(ErrorCode.PATH, node.at(0), message, key_path=where, hint=hint, width=width)
        elif is_glob:
            self._glob(node, sample, where)
        return template

    def globs(self, node: Node | None, where: str) -> tuple[Glob, ...]:
        """Read a glob or a list of globs."""
        items = node.items if isinstance(node, ListNode) else (node,)
        texts = [item for item in items if isinstance(item, ScalarNode) and isinstance(item.value, str) and item.value]
        found = (self._glob(item, item.text, where) for item in texts)
        return tuple(glob for glob in found if glob is not None)

    def conditions(self, node: Node | None, where: str) -> Iterator[Condition]:
        """Yield the conditions of a ``where``."""
        for name, entry in node.entries.items() if isinstance(node, MapNode) else ():
            self._check_attribute(name, entry.key, where)
            yield Condition(entry.key, name, self._selector(entry.value, f"{where}.{name}"))

    def _glob(self, node: ScalarNode, text: str, where: str) -> Glob | None:
        try:
            return Glob.parse(text)
        except GlobError as error:
            # A path's sample is another text than the one written.
            location = node.at(error.offset if text == node.text else 0)
            self.problems.add(ErrorCode.GLOB, location, f"{node.text!r}: {error}", key_path=where, hint=error.hint)
            return None

    def _selector(self, node: Node, where: str) -> Selector:
        if not isinstance(node, MapNode):
            return Selector(any_of=self._choices(node, where), text=" or ".join(one.text for one in _texts(node)))
        minimum, maximum = (self.parse_quantity(node.get(key), where) for key in ("min", "max"))
        exists = node.get("exists")
        selector = Selector(
            any_of=self._choices(node.get("in"), f"{where}.in"),
            none_of=self._choices(node.get("notIn"), f"{where}.notIn"),
            matches=self._regex(node.get("matches"), where),
            minimum=minimum,
            maximum=maximum,
            exists=exists.value if isinstance(exists, ScalarNode) and isinstance(exists.value, bool) else None,
            text=", ".join(f"{key} {json.dumps(to_python(entry.value))}" for key, entry in node.entries.items()),
        )
        self._check_possible(selector, node, where)
        return selector

    def _choices(self, node: Node | None, where: str) -> tuple[str, ...]:
        """Return what a selector's globs choose from, in comparable form."""
        chosen: list[str] = []
        for one in _texts(node):
            try:
                chosen += map(normalize, expand_braces(one.text))
            except GlobError as error:
                location, message = one.at(error.offset), f"{one.text!r}: {error}"
                self.problems.add(ErrorCode.GLOB, location, message, key_path=where, hint=error.hint)
        return tuple(chosen)

    def _check_possible(self, selector: Selector, node: MapNode, where: str) -> None:
        if selector.minimum is not None and selector.maximum is not None and selector.minimum > selector.maximum:
            message, location = "no number is both at least 'min' and at most 'max'", node.entries["min"].key
            self.problems.add(
                ErrorCode.SELECTOR, location, message, key_path=where, hint="swap the two", width=len("min")
            )
        if selector.exists is False and len(node.entries) > 1:
            message, location = "what must not exist has no value to test", node.entries["exists"].key
            hint = "remove 'exists: false' or the other tests"
            self.problems.add(ErrorCode.SELECTOR, location, message, key_path=where, hint=hint, width=len("exists"))

    def parse_quantity(self, node: Node | None, where: str) -> float | None:
        """Read a number or a quantity; None where there is none, or a mistake in it."""
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool | None):
            return None
        found = parse_quantity(node.text)
        if found is None:
            message, expected = f"{node.text!r} is no number", "a number or a quantity, for example 8 or 64Gi"
            width = len(node.text)
            self.problems.add(ErrorCode.SELECTOR, node.at(0), message, key_path=where, expected=expected, width=width)
        return found

    def pattern(self, node: Node | None, where: str) -> str | None:
        """Read a regular expression without templates, and return its text."""
        return node.text if isinstance(node, ScalarNode) and self._regex(node, where) is not None else None

    def _regex(self, node: Node | None, where: str) -> Pattern | None:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        return self._pattern(node, node.value, where)

    def find(self, node: Node | None, where: str) -> Template | None:
        """Read a regular expression with templates in it."""
        template = self.template(node, where)
        if template is None or not isinstance(node, ScalarNode):
            return None
        # What a value will be is not known at load; that it stands for itself is.
        sample = template.render(dict.fromkeys(template.names, ("x",)))
        return template if self._pattern(node, sample, where) is not None else None

    def _pattern(self, node: ScalarNode, text: str, where: str) -> Pattern | None:
        try:
            return compile_regex(text)
        except PatternError as error:
            hint = "the syntax is RE2's: no look-ahead and no back-references, so that none can hang"
            message = f"{node.text!r} is no regular expression: {error}"
            self.problems.add(ErrorCode.SELECTOR, node.at(0), message, key_path=where, hint=hint, width=len(node.text))
            return None

    def _sample(self, name: str, parts: Sequence[str | Reference]) -> tuple[str]:
        """Return a text for an attribute: a path where it is one or, at the start of a path, may be one."""
        # A name that has been refused must not be refused again for what it might have been.
        may_be = name in self.own or name.startswith(ENVIRONMENT_PREFIX) or not is_known_attribute(name)
        is_first = isinstance(parts[0], Reference) and parts[0].name == name
        return (_LONG_PATH if name in _PATHS or (may_be and is_first) else "x",)

    def _check_attribute(self, name: str, location: SourceLocation, where: str) -> None:
        if is_known_attribute(name) or name in self.own:
            return
        if name == SLICE:
            message = "'slice', the number of a slice, is not known here"
            hint = "it is in allocate.env, annotations and cdiDevices of a resource with 'slices'"
        else:
            message = f"unknown attribute {name!r}"
            hint = did_you_mean(name, (*KNOWN_ATTRIBUTES, *self.own)) or _LISTED
        self.problems.add(ErrorCode.UNKNOWN_ATTRIBUTE, location, message, key_path=where, hint=hint, width=len(name))


def items(node: Node | None) -> tuple[Node, ...]:
    """Return the entries of a list; none where there is none."""
    return node.items if isinstance(node, ListNode) else ()


def entries(node: Node | None) -> Iterator[tuple[str, MapEntry]]:
    """Yield the keys and entries of a map; none where there is none."""
    if isinstance(node, MapNode):
        yield from node.entries.items()


def is_set(node: Node | None, key: str, *, value: bool) -> bool:
    """Say whether a map has a key with this truth value."""
    found = node.get(key) if isinstance(node, MapNode) else None
    return isinstance(found, ScalarNode) and found.value is value


def number(node: Node | None, default: float) -> float:
    """Return a number as written, or the default."""
    return float(node.value) if isinstance(node, ScalarNode) and isinstance(node.value, int | float) else default


def first_key_location(node: MapNode) -> SourceLocation:
    """Return where the first key of a map stands."""
    return next((entry.key for entry in node.entries.values()), node.location)


def _texts(node: Node | None) -> list[ScalarNode]:
    items = node.items if isinstance(node, ListNode) else (node,)
    return [item for item in items if isinstance(item, ScalarNode) and isinstance(item.value, str)]
