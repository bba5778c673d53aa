"""Texts with a meaning inside: templates, globs and selectors, each read with its mistakes noted where they stand."""

import json
from collections.abc import Iterable, Iterator

from attrs import frozen

from genplug.config.document import ListNode, MapNode, Node, ScalarNode, plain
from genplug.config.globs import Glob, GlobError, patterns
from genplug.config.names import CANDIDATE_ATTRIBUTES, LATER_ATTRIBUTES, is_later_attribute
from genplug.config.place import Place
from genplug.config.problem import Code, Problems
from genplug.config.schema import closest
from genplug.config.selectors import Condition, Pattern, Selector, comparable, quantity
from genplug.config.template import Reference, Template, TemplateError

_KNOWN = ", ".join(CANDIDATE_ATTRIBUTES)
_SAMPLES = {name: ("/x",) if name in ("path", "target") else ("x",) for name in CANDIDATE_ATTRIBUTES}
"""What the attributes will be is not known at load; that two of them are absolute paths is."""


@frozen
class Texts:
    """A reader of texts.

    ``own`` are the names of the configuration's own attributes: where they are defined they have been refused, and
    where they are used is no second mistake.
    """

    problems: Problems
    own: frozenset[str] = frozenset()

    def template(self, node: Node | None, where: str) -> Template | None:
        """Read a template; None where there is no text, or a mistake in it."""
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        try:
            template = Template.parse(node.value)
        except TemplateError as error:
            place = node.at(error.offset)
            self.problems.add(Code.TEMPLATE, place, str(error), tree=where, hint=error.hint)
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
        sample = template.render({name: _SAMPLES.get(name, _unknown(template.parts)) for name in template.names})
        width = len(node.text)
        if not sample.startswith("/"):
            message = f"{node.text!r} is not an absolute path"
            self.problems.add(Code.PATH, node.at(0), message, tree=where, hint="begin it with '/'", width=width)
        elif ".." in sample.split("/"):
            message, hint = f"{node.text!r} climbs with '..'", "write the path without it"
            self.problems.add(Code.PATH, node.at(0), message, tree=where, hint=hint, width=width)
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
            place = node.at(error.offset if text == node.text else 0)
            self.problems.add(Code.GLOB, place, f"{node.text!r}: {error}", tree=where, hint=error.hint)
            return None

    def _selector(self, node: Node, where: str) -> Selector:
        if not isinstance(node, MapNode):
            return Selector(any_of=self._choices(node, where), text=" or ".join(one.text for one in _texts(node)))
        minimum, maximum = (self._quantity(node.get(key), where) for key in ("min", "max"))
        exists = node.get("exists")
        selector = Selector(
            any_of=self._choices(node.get("in"), f"{where}.in"),
            none_of=self._choices(node.get("notIn"), f"{where}.notIn"),
            matches=self._regex(node.get("matches"), where),
            minimum=minimum,
            maximum=maximum,
            exists=exists.value if isinstance(exists, ScalarNode) and isinstance(exists.value, bool) else None,
            text=", ".join(f"{key} {json.dumps(plain(entry.value))}" for key, entry in node.entries.items()),
        )
        self._check_possible(selector, node, where)
        return selector

    def _choices(self, node: Node | None, where: str) -> tuple[str, ...]:
        """Return what a selector's globs choose from, in comparable form."""
        chosen: list[str] = []
        for one in _texts(node):
            try:
                chosen += map(comparable, patterns(one.text))
            except GlobError as error:
                place, message = one.at(error.offset), f"{one.text!r}: {error}"
                self.problems.add(Code.GLOB, place, message, tree=where, hint=error.hint)
        return tuple(chosen)

    def _check_possible(self, selector: Selector, node: MapNode, where: str) -> None:
        if selector.minimum is not None and selector.maximum is not None and selector.minimum > selector.maximum:
            message, place = "no number is both at least 'min' and at most 'max'", node.entries["min"].key
            self.problems.add(Code.SELECTOR, place, message, tree=where, hint="swap the two", width=len("min"))
        if selector.exists is False and len(node.entries) > 1:
            message, place = "what must not exist has no value to test", node.entries["exists"].key
            hint = "remove 'exists: false' or the other tests"
            self.problems.add(Code.SELECTOR, place, message, tree=where, hint=hint, width=len("exists"))

    def _quantity(self, node: Node | None, where: str) -> float | None:
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool | None):
            return None
        found = quantity(node.text)
        if found is None:
            message, expected = f"{node.text!r} is no number", "a number or a quantity, for example 8 or 64Gi"
            width = len(node.text)
            self.problems.add(Code.SELECTOR, node.at(0), message, tree=where, expected=expected, width=width)
        return found

    def _regex(self, node: Node | None, where: str) -> Pattern | None:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        # Imported here: only who writes a regular expression pays for the engine.
        import re2  # noqa: PLC0415

        options = re2.Options()
        options.log_errors = False
        try:
            pattern: Pattern = re2.compile(node.value, options)
        except re2.error as error:
            reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
            hint = "the syntax is RE2's: no look-ahead and no back-references, so that none can hang"
            message = f"{node.text!r} is no regular expression: {reason}"
            self.problems.add(Code.SELECTOR, node.at(0), message, tree=where, hint=hint, width=len(node.text))
            return None
        return pattern

    def _check_attribute(self, name: str, place: Place, where: str) -> None:
        if name in CANDIDATE_ATTRIBUTES or name in self.own:
            return
        if is_later_attribute(name):
            message, hint = f"the attribute {name!r} is not supported yet", f"this version has {_KNOWN}"
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint, width=len(name))
            return
        hint = closest(name, (*CANDIDATE_ATTRIBUTES, *LATER_ATTRIBUTES)) or f"there are {_KNOWN}"
        message = f"unknown attribute {name!r}"
        self.problems.add(Code.UNKNOWN_ATTRIBUTE, place, message, tree=where, hint=hint, width=len(name))


def _unknown(parts: Iterable[str | Reference]) -> tuple[str]:
    # A name that has been refused must not be refused again for what it might have been.
    return ("x",) if isinstance(next(iter(parts)), str) else ("/x",)


def _texts(node: Node | None) -> list[ScalarNode]:
    items = node.items if isinstance(node, ListNode) else (node,)
    return [item for item in items if isinstance(item, ScalarNode) and isinstance(item.value, str)]
