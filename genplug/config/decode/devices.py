"""Decodes ``devices``: globs, conditions, custom attributes, and the device nodes of a device."""

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from genplug.config.decode.values import ValueDecoder, entries, first_key_location, integer, is_set, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode
from genplug.hardware.attribute_names import is_known_attribute, needs_sysfs
from genplug.spec.container_rules import node_target_error, path_error
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_ATTRIBUTE_DEPTH, MAX_CUSTOM_ATTRIBUTES
from genplug.spec.model import CandidateType, CustomAttribute, NodeAccess, NodeSpec, Source
from genplug.spec.names import RESOURCE, SLICE, is_attribute_name
from genplug.spec.policy import Policy
from genplug.spec.read_checks import literal_read_error
from genplug.spec.template import Template

_PERMISSIONS = "rwm"
_MODE = re.compile("0?[0-7]{3}")


def custom_attribute_names(resource: MapNode) -> frozenset[str]:
    """Return the names of all custom attributes of a resource."""
    return frozenset().union(*map(_names, items(resource.get("devices"))))


def decode_source(node: MapNode, where: str, diagnostics: Diagnostics, policy: Policy | None) -> Source:
    """Return the decoded entry of ``devices``; its templates may refer to the custom attributes that it defines.

    With None as policy, everything is allowed.
    """
    return _SourceDecoder(diagnostics, ValueDecoder(diagnostics, _names(node), policy), policy).source(node, where)


class _SourceDecoder(Struct, frozen=True):
    diagnostics: Diagnostics
    values: ValueDecoder
    policy: Policy | None

    def source(self, node: MapNode, where: str) -> Source:
        globs = self.values.globs(node.get("glob"), f"{where}.glob")
        attributes = self._attributes(node.get("attributes"), f"{where}.attributes")
        self._check_globs(node.get("glob"), globs, f"{where}.glob")
        return Source(
            location=first_key_location(node),
            globs=globs,
            exclude=self.values.globs(node.get("exclude"), f"{where}.exclude"),
            type=_type(node, globs),
            where=tuple(self.values.conditions(node.get("where"), f"{where}.where")),
            group_by=self.values.template(node.get("groupBy"), f"{where}.groupBy"),
            nodes=self._nodes(node.get("nodes"), f"{where}.nodes"),
            companions=self._nodes(node.get("with"), f"{where}.with"),
            id=self.values.template(node.get("id"), f"{where}.id"),
            attributes=tuple(attributes.values()),
            sysfs=self._sysfs(node, attributes, where),
            is_id_verbatim=self._is_id_verbatim(node, where),
        )

    def _attributes(self, node: Node | None, where: str) -> dict[str, CustomAttribute]:
        found = {}
        for name, entry in entries(node):
            attribute = self._attribute(name, entry, f"{where}.{name}")
            if attribute is not None:
                found[name] = attribute
        too_many = list(found.values())[MAX_CUSTOM_ATTRIBUTES:]
        if too_many:
            message = f"{len(found)} custom attributes, at most {MAX_CUSTOM_ATTRIBUTES} are allowed in an entry"
            location, width = too_many[0].location, len(too_many[0].name)
            hint = "remove attributes that nothing refers to, or divide the entry"
            self.diagnostics.add(ErrorCode.WRONG_VALUE, location, message, key_path=where, hint=hint, width=width)
            return dict(list(found.items())[:MAX_CUSTOM_ATTRIBUTES])
        self._check_dependencies(found, where)
        return found

    def _check_dependencies(self, found: Mapping[str, CustomAttribute], where: str) -> None:
        """Record attributes that depend on themselves, or on too long a chain of attributes."""
        errors: list[tuple[ErrorCode, str, str, str]] = []
        for attribute in found.values():
            if (cycle := _find_cycle(attribute, found)) is not None:
                message = f"{attribute.name!r} depends on {', which depends on '.join(map(repr, cycle[1:]))}"
                errors.append((ErrorCode.CONFLICT, attribute.name, message, "remove the circular definition"))
        depth, deepest = _measure_depth(found) if not errors else (0, "")
        if depth > MAX_ATTRIBUTE_DEPTH:
            message = f"{deepest!r} ends a chain of {depth} attributes, at most {MAX_ATTRIBUTE_DEPTH} are allowed"
            errors.append(
                (ErrorCode.WRONG_VALUE, deepest, message, "replace attributes of the chain with one attribute")
            )
        for code, name, message, hint in errors:
            self.diagnostics.add(code, found[name].location, message, key_path=where, hint=hint, width=len(name))

    def _attribute(self, name: str, entry: MapEntry, where: str) -> CustomAttribute | None:
        width = max(len(name), 1)
        if not is_attribute_name(name):
            message, hint = (
                f"{name!r} is not a valid attribute name",
                "start with a letter or '_'; continue with letters, digits, '_', '-' and '.'",
            )
            self.diagnostics.add(ErrorCode.NAME, entry.key, message, key_path=where, hint=hint, width=width)
        elif is_known_attribute(name) or name in {RESOURCE, SLICE}:
            message, hint = f"{name!r} is a built-in attribute", "use another name"
            self.diagnostics.add(ErrorCode.NAME, entry.key, message, key_path=where, hint=hint, width=width)
        fields = entry.value
        if not isinstance(fields, MapNode):
            return None
        paths = tuple(self._alternatives(fields.get("path"), f"{where}.path", is_path=True))
        for template in paths:
            self._check_read(fields.get("path"), template, f"{where}.path")
        values = tuple(self._alternatives(fields.get("value"), f"{where}.value", is_path=False))
        find = self.values.find(fields.get("find"), f"{where}.find")
        use_dir_name, collect_all = is_set(fields, "dir", value=True), is_set(fields, "all", value=True)
        has_origin = self._check_origin(name, fields, entry, where)
        if not has_origin or not (paths or values):
            return None
        return CustomAttribute(entry.key, name, paths, find, use_dir_name, collect_all, values)

    def _alternatives(self, node: Node | None, where: str, *, is_path: bool) -> Iterator[Template]:
        """Yield the templates of a string or a list of strings."""
        for item in node.items if isinstance(node, ListNode) else (node,):
            template = self.values.path(item, where, is_glob=True) if is_path else self.values.template(item, where)
            # The schema check has reported an empty string.
            if template is not None and template.text:
                yield template

    def _check_origin(self, name: str, fields: MapNode, entry: MapEntry, where: str) -> bool:
        """Return whether an attribute has either a path or a value, and record an error if it does not."""
        present = [key for key in ("path", "value") if key in fields.entries]
        if not present:
            message, hint = f"the attribute {name!r} has neither 'path' nor 'value'", "add path: FILE"
            width = max(len(name), 1)
            self.diagnostics.add(ErrorCode.MISSING_KEY, entry.key, message, key_path=where, hint=hint, width=width)
        for key, hint in {
            "path": "remove 'path', which names files, or 'value', which is a text",
            "dir": "remove 'dir': a text is not in a directory",
        }.items():
            if "value" in present and key in fields.entries:
                location, message = fields.entries[key].key, f"{key!r} and 'value' are mutually exclusive"
                self.diagnostics.add(ErrorCode.CONFLICT, location, message, key_path=where, hint=hint, width=len(key))
        return bool(present)

    def _is_id_verbatim(self, node: MapNode, where: str) -> bool:
        if not is_set(node, "verbatimId", value=True):
            return False
        if "id" not in node.entries:
            message, hint = "'verbatimId' requires 'id'", 'add one: id: "${pci.address}"'
            location, tree = node.entries["verbatimId"].key, f"{where}.verbatimId"
            self.diagnostics.add(
                ErrorCode.MISSING_KEY, location, message, key_path=tree, hint=hint, width=len("verbatimId")
            )
        return True

    def _sysfs(self, node: MapNode, custom: Mapping[str, CustomAttribute], where: str) -> Template | None:
        written, tree = node.get("sysfs"), f"{where}.sysfs"
        template = self.values.path(written, tree)
        if template is None or not isinstance(written, ScalarNode):
            return None
        for reference in template.references:
            for name, offset in reference.named_offsets:
                needed = next(filter(needs_sysfs, sorted(_all_names(name, custom))), None)
                if needed is None:
                    continue
                what = repr(name) if needed == name else f"{name!r} depends on {needed!r}, which"
                message = f"{what} is read from the directory that 'sysfs' defines"
                hint = "use attributes that do not depend on it: path, name, index, minor, attributes of other files"
                location = written.at(offset)
                self.diagnostics.add(ErrorCode.CONFLICT, location, message, key_path=tree, hint=hint, width=len(name))
        self._check_read(written, template, tree)
        return template

    def _check_globs(self, node: Node | None, globs: Sequence[Glob], where: str) -> None:
        """Record globs of which an alternative names only paths that the policy does not allow to name."""
        parsed = {glob.text: glob for glob in globs}
        for item in _scalars(node):
            if self.policy is None or item.text not in parsed:
                continue
            if error := self.policy.node_glob_error(parsed[item.text]):
                message, width = f"the glob {item.text!r} is {error}", len(item.text)
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, item.at(0), message, key_path=where, hint=self.policy.help, width=width
                )

    def _check_read(self, node: Node | None, template: Template, where: str) -> None:
        """Record a path of a file that the policy does not allow to read, if the text before templates decides."""
        written = next((item for item in _scalars(node) if item.text == template.text), None)
        if written is None or self.policy is None:
            return
        if error := literal_read_error(template, self.policy):
            message, width = f"reading {template.text!r} is {error}", len(template.text)
            self.diagnostics.add(
                ErrorCode.NOT_ALLOWED, written.at(0), message, key_path=where, hint=self.policy.help, width=width
            )

    def _nodes(self, node: Node | None, where: str) -> tuple[NodeSpec, ...]:
        specs = (self._node(item, f"{where}[{number}]") for number, item in enumerate(items(node)))
        return tuple(spec for spec in specs if spec is not None)

    def _node(self, node: Node, where: str) -> NodeSpec | None:
        fields = node if isinstance(node, MapNode) else MapNode(node.location, {"path": MapEntry(node.location, node)})
        path = self.values.path(fields.get("path"), where, is_glob=True)
        container_path = self.values.path(fields.get("as"), where)
        written = fields.get("permissions")
        letters = written.text if isinstance(written, ScalarNode) else "rw"
        permissions = "".join(letter for letter in _PERMISSIONS if letter in letters)
        if path is None:
            return None
        self._check_target(fields.get("as"), container_path, path, where)
        optional = is_set(node, "optional", value=True)
        return NodeSpec(node.location, path, container_path, permissions, optional, _access(fields))

    def _check_target(self, node: Node | None, container_path: Template | None, path: Template, where: str) -> None:
        # A template is checked when it is rendered, and an invalid path was reported.
        if not isinstance(node, ScalarNode) or container_path is None or container_path.names:
            return
        target = container_path.render({})
        host_path = "" if path.names else path.render({})
        if path_error(target) or not (error := node_target_error(target, host_path)):
            return
        message, hint = f"the container path {target!r} {error}", "write another path below /dev"
        self.diagnostics.add(
            ErrorCode.PATH, node.at(0), message, key_path=f"{where}.as", hint=hint, width=len(node.text)
        )


def _access(fields: MapNode) -> NodeAccess:
    """Return the owner, group and mode of a device node."""
    written = {key: entry for key, entry in fields.entries.items() if key in {"owner", "group", "mode"}}
    mode = fields.get("mode")
    # The schema check has reported other values.
    is_mode = isinstance(mode, ScalarNode) and _MODE.fullmatch(mode.text)
    return NodeAccess(
        owner=integer(fields.get("owner")),
        group=integer(fields.get("group")),
        mode=int(mode.text, 8) if isinstance(mode, ScalarNode) and is_mode else None,
        location=next((entry.key for entry in written.values()), None),
    )


def _scalars(node: Node | None) -> Iterator[ScalarNode]:
    yield from (item for item in items(node) or (node,) if isinstance(item, ScalarNode))


def _type(node: MapNode, globs: Sequence[Glob]) -> CandidateType:
    written = node.get("type")
    if isinstance(written, ScalarNode) and written.value in list(CandidateType):
        return CandidateType(str(written.value))
    is_dev = all(segments[0].text == "dev" for glob in globs for segments in glob)
    return CandidateType.DEVICE if is_dev else CandidateType.ANY


def _names(source: Node) -> frozenset[str]:
    """Return the names of the custom attributes of a ``devices`` entry."""
    own = source.get("attributes") if isinstance(source, MapNode) else None
    return frozenset(own.entries if isinstance(own, MapNode) else ())


def _all_names(name: str, custom: Mapping[str, CustomAttribute]) -> frozenset[str]:
    """Return a name and, if it is a custom attribute, the names of all attributes that it depends on."""
    known, waiting = set[str](), {name}
    while waiting:
        known.add(name := waiting.pop())
        if name in custom:
            waiting |= custom[name].names - known
    return frozenset(known)


def _measure_depth(custom: Mapping[str, CustomAttribute]) -> tuple[int, str]:
    """Return the length of the longest chain of attributes that refer to each other, and its end; 0 without any."""
    depths: dict[str, int] = {}
    waiting = dict(custom)
    while waiting:
        for name, attribute in list(waiting.items()):
            needed = attribute.names & custom.keys()
            if needed <= depths.keys():
                depths[name] = 1 + max((depths[other] for other in needed), default=0)
                del waiting[name]
    return max(((depth, name) for name, depth in depths.items()), default=(0, ""))


def _find_cycle(start: CustomAttribute, custom: Mapping[str, CustomAttribute]) -> list[str] | None:
    """Return the chain of names from an attribute back to itself, or None."""
    chains = [[start.name]]
    seen = set[str]()
    while chains:
        chain = chains.pop()
        for name in sorted(custom[chain[-1]].names & custom.keys()):
            if name == start.name:
                return [*chain, name]
            if name not in seen:
                seen.add(name)
                chains.append([*chain, name])
    return None
