"""Decodes strings with their own syntax: templates, globs, selectors, quantities and regular expressions."""

import json
from collections.abc import Iterator, Sequence

from msgspec import Struct

from genplug.config.diagnostics import Budget, Diagnostics
from genplug.config.schema import did_you_mean
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode, to_python
from genplug.hardware.attribute_names import is_known_attribute, list_known_attributes
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.globs import Glob, GlobError, count_wildcards, expand_braces
from genplug.spec.location import SourceLocation
from genplug.spec.names import ENVIRONMENT_PREFIX, RESOURCE, SLICE
from genplug.spec.policy import Policy
from genplug.spec.regex import Pattern, PatternError, compile_regex
from genplug.spec.selectors import Condition, Selector, normalize, parse_quantity
from genplug.spec.template import Reference, RenderLimitError, Template, TemplateError, Values

_LIST_HINT = "docs/reference/configuration.md lists them; define custom attributes under 'attributes' of the entry"
_LONG_PATH = "/x" * 16
_PATHS = ("path", "target", "sysfs")
"""Attributes whose values are absolute paths."""


class ValueDecoder(Struct, frozen=True):
    """Decodes strings and records their errors.

    ``custom`` are the names of the custom attributes that templates may refer to. ``policy`` limits the environment
    variables that they may refer to; with None, all are allowed.
    """

    diagnostics: Diagnostics
    custom: frozenset[str] = frozenset()
    policy: Policy | None = None

    def template(self, node: Node | None, where: str) -> Template | None:
        """Return a template, or None if there is no string or an error in it."""
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        try:
            template = Template.parse(node.value)
        except TemplateError as error:
            location = node.at(error.offset)
            self.diagnostics.add(ErrorCode.TEMPLATE, location, str(error), key_path=where, hint=error.hint)
            return None
        steps = sum(1 + len(reference.filters) for reference in template.references)
        if not self._spend(Budget.TEMPLATE_STEPS, steps, node, where):
            return None
        for reference in template.references:
            for name, offset in reference.named_offsets:
                # The location of an offset takes time in a long text.
                if not self._is_attribute(name) or name.startswith(ENVIRONMENT_PREFIX):
                    self._check_attribute(name, node.at(offset), where)
        # The values are unknown here, but filters can make a long text of every value.
        is_bounded = self._render_sample(node, template, dict.fromkeys(template.names, ("x",)), where) is not None
        return template if is_bounded else None

    def path(self, node: Node | None, where: str, *, is_glob: bool = False) -> Template | None:
        """Return a template that renders to an absolute path, or to a glob over such paths."""
        template = self.template(node, where)
        # The schema check has reported an empty string.
        if template is None or not isinstance(node, ScalarNode) or not node.text:
            return None
        values = {name: self._sample(name, template.parts) for name in template.names}
        if (sample := self._render_sample(node, template, values, where)) is None:
            return None
        width = len(node.text)
        if not sample.startswith("/"):
            message = f"{node.text!r} is not an absolute path"
            self.diagnostics.add(
                ErrorCode.PATH, node.at(0), message, key_path=where, hint="start it with '/'", width=width
            )
        elif ".." in sample.split("/"):
            message, hint = f"{node.text!r} contains '..'", "write the path without it"
            self.diagnostics.add(ErrorCode.PATH, node.at(0), message, key_path=where, hint=hint, width=width)
        elif is_glob:
            self._glob(node, sample, where)
        return template

    def _render_sample(self, node: ScalarNode, template: Template, values: Values, where: str) -> str | None:
        """Return the text that a template renders to; record an error and return None if it exceeds a limit."""
        try:
            return template.render(values)
        except RenderLimitError as error:
            location, message = node.at(0), f"the template {error}"
            hint = "shorten the template, or remove 'replace' filters that make values longer"
            width = max(len(node.text), 1)
            self.diagnostics.add(ErrorCode.TEMPLATE, location, message, key_path=where, hint=hint, width=width)
            return None

    def globs(self, node: Node | None, where: str) -> tuple[Glob, ...]:
        """Return the globs of a string or a list of strings."""
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
        if self.diagnostics.is_spent(Budget.PATTERNS) or self.diagnostics.is_spent(Budget.WILDCARDS):
            return None
        try:
            # Before the glob is compiled.
            self._spend(Budget.WILDCARDS, count_wildcards(expand_braces(text)), node, where)
            if self.diagnostics.is_spent(Budget.WILDCARDS):
                return None
            glob = Glob.parse(text)
        except GlobError as error:
            # The offset refers to the rendered sample, which may differ from the text.
            location = node.at(error.offset if text == node.text else 0)
            self.diagnostics.add(ErrorCode.GLOB, location, f"{node.text!r}: {error}", key_path=where, hint=error.hint)
            return None
        self._spend(Budget.PATTERNS, len(glob.alternatives), node, where)
        return glob

    def _selector(self, node: Node, where: str) -> Selector:
        if not isinstance(node, MapNode):
            return Selector(
                any_of=self._choices(node, where), text=" or ".join(scalar.text for scalar in _strings(node))
            )
        minimum, maximum = (self.parse_quantity(node.get(key), where) for key in ("min", "max"))
        exists = node.get("exists")
        selector = Selector(
            any_of=self._choices(node.get("in"), f"{where}.in"),
            none_of=self._choices(node.get("notIn"), f"{where}.notIn"),
            matches=self._regex(node.get("matches"), where),
            minimum=minimum,
            maximum=maximum,
            exists=exists.value if isinstance(exists, ScalarNode) and isinstance(exists.value, bool) else None,
            allows_missing=is_set(node, "missing", value="ok"),
            text=", ".join(f"{key} {json.dumps(to_python(entry.value))}" for key, entry in node.entries.items()),
        )
        self._check_possible(selector, node, where)
        return selector

    def name_globs(self, node: Node | None, where: str) -> tuple[str, ...]:
        """Return the brace-free globs over names of a string or a list of strings."""
        globs: list[str] = []
        for scalar in _strings(node):
            if self.diagnostics.is_spent(Budget.PATTERNS) or self.diagnostics.is_spent(Budget.WILDCARDS):
                break
            try:
                expanded = expand_braces(scalar.text)
            except GlobError as error:
                location, message = scalar.at(error.offset), f"{scalar.text!r}: {error}"
                self.diagnostics.add(ErrorCode.GLOB, location, message, key_path=where, hint=error.hint)
            else:
                globs += expanded
                self._spend(Budget.PATTERNS, len(expanded), scalar, where)
                self._spend(Budget.WILDCARDS, count_wildcards(expanded), scalar, where)
        return tuple(globs)

    def _choices(self, node: Node | None, where: str) -> tuple[str, ...]:
        """Return the globs of a selector in normalized form."""
        return tuple(map(normalize, self.name_globs(node, where)))

    def _check_possible(self, selector: Selector, node: MapNode, where: str) -> None:
        if selector.minimum is not None and selector.maximum is not None and selector.minimum > selector.maximum:
            message, location = "'min' is greater than 'max', so no value can match", node.entries["min"].key
            self.diagnostics.add(
                ErrorCode.SELECTOR, location, message, key_path=where, hint="swap the two", width=len("min")
            )
        if selector.exists is not None and selector.allows_missing:
            message, location = "'exists' and 'missing' are mutually exclusive", node.entries["missing"].key
            hint = "remove one of them: 'missing: ok' accepts a candidate without the attribute"
            self.diagnostics.add(ErrorCode.SELECTOR, location, message, key_path=where, hint=hint, width=len("missing"))
        elif selector.allows_missing and len(node.entries) == 1:
            message, location = "'missing: ok' alone accepts every candidate", node.entries["missing"].key
            hint = "add the test of an existing attribute: {notIn: [vfio-pci], missing: ok}"
            self.diagnostics.add(ErrorCode.SELECTOR, location, message, key_path=where, hint=hint, width=len("missing"))
        elif selector.exists is False and len(node.entries) > 1:
            message, location = "'exists: false' excludes all other conditions", node.entries["exists"].key
            hint = "remove 'exists: false' or the other conditions"
            self.diagnostics.add(ErrorCode.SELECTOR, location, message, key_path=where, hint=hint, width=len("exists"))

    def parse_quantity(self, node: Node | None, where: str) -> float | None:
        """Return a number or a quantity, or None if there is none or an error in it."""
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool | None):
            return None
        found = parse_quantity(node.text)
        if found is None:
            message, expected = f"{node.text!r} is not a number", "a number or a quantity, for example 8 or 64Gi"
            width = len(node.text)
            self.diagnostics.add(
                ErrorCode.SELECTOR, node.at(0), message, key_path=where, expected=expected, width=width
            )
        return found

    def pattern(self, node: Node | None, where: str) -> str | None:
        """Return the text of a regular expression without templates, or None."""
        return node.text if isinstance(node, ScalarNode) and self._regex(node, where) is not None else None

    def _regex(self, node: Node | None, where: str) -> Pattern | None:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        return self._pattern(node, node.value, where)

    def find(self, node: Node | None, where: str) -> Template | None:
        """Return a template that renders to a regular expression, or None."""
        template = self.template(node, where)
        if template is None or not isinstance(node, ScalarNode):
            return None
        # The values are unknown here but are inserted escaped, so a placeholder checks the expression.
        sample = template.render(dict.fromkeys(template.names, ("x",)))
        return template if self._pattern(node, sample, where) is not None else None

    def _pattern(self, node: ScalarNode, text: str, where: str) -> Pattern | None:
        if not self._spend(Budget.REGEXES, 1, node, where, once=text):
            return None
        try:
            pattern = compile_regex(text)
        except PatternError as error:
            hint = "the syntax is that of RE2: no look-ahead and no back-references"
            message = f"{node.text!r} is not a regular expression: {error}"
            self.diagnostics.add(
                ErrorCode.SELECTOR, node.at(0), message, key_path=where, hint=hint, width=len(node.text)
            )
            return None
        is_affordable = self._spend(Budget.REGEX_INSTRUCTIONS, pattern.programsize, node, where, once=text)
        return pattern if is_affordable else None

    def _spend(self, budget: Budget, amount: int, node: ScalarNode, where: str, *, once: str | None = None) -> bool:
        width = max(len(node.text), 1)
        return self.diagnostics.spend(budget, amount, node.at(0), key_path=where, width=width, once=once)

    def _sample(self, name: str, parts: Sequence[str | Reference]) -> tuple[str]:
        """Return a sample value of an attribute: a path if it is a path or may be one at the start of a path."""
        # Do not report a second error for an attribute that was already reported as unknown.
        may_be = (
            name in self.custom - {RESOURCE, SLICE}
            or name.startswith(ENVIRONMENT_PREFIX)
            or not is_known_attribute(name)
        )
        is_first = isinstance(parts[0], Reference) and parts[0].name == name
        return (_LONG_PATH if name in _PATHS or (may_be and is_first) else "x",)

    def _is_attribute(self, name: str) -> bool:
        return is_known_attribute(name) or name in self.custom

    def _check_attribute(self, name: str, location: SourceLocation, where: str) -> None:
        if name.startswith(ENVIRONMENT_PREFIX):
            variable = name.removeprefix(ENVIRONMENT_PREFIX)
            if self.policy is not None and (error := self.policy.read_env_error(variable)):
                message = f"reading the environment variable {variable!r} of the agent is {error}"
                hint = self.policy.help
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, location, message, key_path=where, hint=hint, width=len(name)
                )
        if self._is_attribute(name):
            return
        if name == SLICE:
            message = "'slice', the number of a slice, is not available here"
            hint = "use it in allocate.env, annotations and cdiDevices of a resource with 'slices'"
        elif name == RESOURCE:
            message = "'resource', the name of the resource, is not available here"
            hint = "use it in allocate and preStart"
        else:
            message = f"unknown attribute {name!r}"
            hint = did_you_mean(name, (*list_known_attributes(), *self.custom)) or _LIST_HINT
        self.diagnostics.add(ErrorCode.UNKNOWN_ATTRIBUTE, location, message, key_path=where, hint=hint, width=len(name))


def items(node: Node | None) -> tuple[Node, ...]:
    """Return the items of a list; empty if the node is not a list."""
    return node.items if isinstance(node, ListNode) else ()


def entries(node: Node | None) -> Iterator[tuple[str, MapEntry]]:
    """Yield the keys and entries of a mapping; nothing if the node is not a mapping."""
    if isinstance(node, MapNode):
        yield from node.entries.items()


def is_set(node: Node | None, key: str, *, value: bool | str) -> bool:
    """Return whether a mapping has a key with this value."""
    found = node.get(key) if isinstance(node, MapNode) else None
    return isinstance(found, ScalarNode) and type(found.value) is type(value) and found.value == value


def number(node: Node | None, default: float) -> float:
    """Return a number, or the default if there is none."""
    return float(node.value) if isinstance(node, ScalarNode) and isinstance(node.value, int | float) else default


def integer(node: Node | None) -> int | None:
    """Return an integer, or None if there is none."""
    is_integer = isinstance(node, ScalarNode) and isinstance(node.value, int) and not isinstance(node.value, bool)
    return int(node.text) if isinstance(node, ScalarNode) and is_integer else None


def first_key_location(node: MapNode) -> SourceLocation:
    """Return the location of the first key of a mapping."""
    return next((entry.key for entry in node.entries.values()), node.location)


def _strings(node: Node | None) -> list[ScalarNode]:
    items = node.items if isinstance(node, ListNode) else (node,)
    return [item for item in items if isinstance(item, ScalarNode) and isinstance(item.value, str)]
