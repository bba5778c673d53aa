"""The one decoder: a merged tree in, the frozen model out, and every mistake of meaning noted at its place.

It runs on trees that the schema found fault with too, so that one run tells everything; what has the wrong shape is
passed over here, because the schema has said so. ``unsupported.py`` refuses what this version cannot do.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from genplug.config.document import Entry, ListNode, MapNode, Node, ScalarNode, plain
from genplug.config.globs import Glob, GlobError
from genplug.config.model import (
    AllocateSpec,
    CandidateType,
    Config,
    HealthSpec,
    MountSpec,
    NodeSpec,
    Resource,
    Source,
)
from genplug.config.names import (
    CANDIDATE_ATTRIBUTES,
    LATER_ATTRIBUTES,
    annotation_key_fault,
    env_name_fault,
    is_later_attribute,
    resource_name_fault,
)
from genplug.config.place import Place
from genplug.config.problem import Code, Problems
from genplug.config.schema import closest
from genplug.config.selectors import Condition, Selector, comparable, quantity
from genplug.config.template import Template, TemplateError
from genplug.config.unsupported import note_unsupported

_PERMISSIONS = "rwm"


def decode(tree: MapNode, files: Sequence[str], problems: Problems) -> Config:
    """Return the model of a tree whose defaults are laid under its resources; it is whole if nothing was noted."""
    decoder = _Decoder(problems)
    if isinstance(defaults := tree.get("defaults"), MapNode):
        decoder.check_shared(defaults, "defaults")
    resources = {}
    for name, entry in _entries(tree.get("resources")):
        resources[name] = decoder.resource(name, entry)
    content = json.dumps(plain(tree), sort_keys=True).encode()
    return Config(resources, tuple(files), hashlib.sha256(content).hexdigest())


@frozen
class _Decoder:
    problems: Problems

    def resource(self, name: str, entry: Entry) -> Resource:
        place, node = entry.key, entry.value
        where = f"resources.{name}"
        self._check_resource_name(name, place, where)
        sources = tuple(
            self._source(item, f"{where}.devices[{number}]")
            for number, item in enumerate(_items(_get(node, "devices")))
            if isinstance(item, MapNode)
        )
        allocate, health = (
            self.check_shared(node, where) if isinstance(node, MapNode) else (AllocateSpec(), HealthSpec())
        )
        replicas, tokens = _number(_get(node, "replicas"), 1), _number(_get(node, "tokens"), 0)
        if replicas > 1 and tokens and isinstance(node, MapNode):
            message = "replicas and tokens exclude each other: a device is listed several times, or all are one pool"
            hint = "remove one; where 'defaults' sets it, write it as null here"
            where_tokens = node.entries["tokens"].key
            self.problems.add(Code.CONFLICT, where_tokens, message, tree=where, hint=hint, width=len("tokens"))
        overlap = _get(_get(node, "share"), "overlap")
        return Resource(
            name=name,
            place=place,
            sources=sources,
            replicas=int(replicas),
            tokens=int(tokens) or None,
            overlap=isinstance(overlap, ScalarNode) and overlap.value is True,
            allocate=allocate,
            health=health,
        )

    def check_shared(self, node: MapNode, where: str) -> tuple[AllocateSpec, HealthSpec]:
        """Read what ``defaults`` and resources have in common, and note what is wrong in it."""
        note_unsupported(node, where, self.problems)
        keep = _number(_get(node.get("health"), "keepGoneSeconds"), HealthSpec().keep_gone_seconds)
        return self._allocate(node.get("allocate"), f"{where}.allocate"), HealthSpec(float(keep))

    def _check_resource_name(self, name: str, place: Place, where: str) -> None:
        if "${" in name:
            message = "resource names with templates are not supported yet"
            hint = "write one resource for each name, with a 'where' that selects its devices"
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint, width=len(name))
        elif fault := resource_name_fault(name):
            hint = "write it as vendor.example/thing"
            self.problems.add(Code.RESOURCE_NAME, place, f"{name!r}: {fault}", tree=where, hint=hint, width=len(name))

    def _source(self, node: MapNode, where: str) -> Source:
        globs = self._globs(node.get("glob"), f"{where}.glob")
        nodes = self._nodes(node.get("nodes"), f"{where}.nodes")
        kind = self._type(node, globs, bool(nodes), where)
        return Source(
            place=_first(node),
            globs=globs,
            exclude=self._globs(node.get("exclude"), f"{where}.exclude"),
            type=kind,
            where=tuple(self._conditions(node.get("where"), f"{where}.where")),
            group_by=self._template(node.get("groupBy"), f"{where}.groupBy"),
            nodes=nodes,
            companions=self._nodes(node.get("with"), f"{where}.with"),
            id=self._template(node.get("id"), f"{where}.id"),
        )

    def _type(self, node: MapNode, globs: Sequence[Glob], has_nodes: bool, where: str) -> CandidateType:  # noqa: FBT001
        written = node.get("type")
        if isinstance(written, ScalarNode) and written.value in {one.value for one in CandidateType}:
            kind = CandidateType(str(written.value))
        else:
            is_dev = all(glob.text.startswith(("/dev/", "{/dev/")) for glob in globs)
            kind = CandidateType.DEVICE if is_dev else CandidateType.ANY
        devices = (CandidateType.DEVICE, CandidateType.CHAR, CandidateType.BLOCK)
        if kind not in devices and not has_nodes and globs:
            place = written.place if isinstance(written, ScalarNode) else _place(node, "glob")
            message = f"candidates of type {kind.value!r} without 'nodes' are not supported yet"
            hint = "name the device nodes under 'nodes', or give a glob under /dev"
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint)
        return kind

    def _globs(self, node: Node | None, where: str) -> tuple[Glob, ...]:
        items = [node] if isinstance(node, ScalarNode) else _items(node)
        read = []
        for item in items:
            if isinstance(item, ScalarNode) and isinstance(item.value, str) and item.value:
                try:
                    read.append(Glob.parse(item.value))
                except GlobError as error:
                    place = _inside(item, error.offset)
                    self.problems.add(Code.GLOB, place, f"{item.text!r}: {error}", tree=where, hint=error.hint)
        return tuple(read)

    def _conditions(self, node: Node | None, where: str) -> Iterator[Condition]:
        for name, entry in _entries(node):
            self._check_attribute(name, entry.key, where)
            yield Condition(entry.key, name, self._selector(entry.value, f"{where}.{name}"))

    def _selector(self, node: Node, where: str) -> Selector:
        if not isinstance(node, MapNode):
            texts = _texts(node)
            return Selector(any_of=tuple(map(comparable, texts)), text=" or ".join(texts))
        any_of, none_of = _texts(node.get("in")), _texts(node.get("notIn"))
        minimum, maximum = (self._quantity(node.get(key), where) for key in ("min", "max"))
        exists, matches = node.get("exists"), node.get("matches")
        said = [f"{key} {json.dumps(plain(entry.value))}" for key, entry in node.entries.items()]
        return Selector(
            any_of=tuple(map(comparable, any_of)),
            none_of=tuple(map(comparable, none_of)),
            matches=self._regex(matches, where),
            minimum=minimum,
            maximum=maximum,
            exists=exists.value if isinstance(exists, ScalarNode) and isinstance(exists.value, bool) else None,
            text=", ".join(said),
        )

    def _quantity(self, node: Node | None, where: str) -> float | None:
        if not isinstance(node, ScalarNode) or node.value is None:
            return None
        found = quantity(node.text)
        if found is None:
            expected = "a number or a quantity, for example 8 or 64Gi"
            message = f"{node.text!r} is no number"
            self.problems.add(Code.SELECTOR, node.place, message, tree=where, expected=expected, width=len(node.text))
        return found

    def _regex(self, node: Node | None, where: str) -> "re2.Pattern | None":  # type: ignore[name-defined]  # noqa: F821
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        # Imported here: only who writes a regular expression pays for the engine.
        import re2  # noqa: PLC0415

        options = re2.Options()
        options.log_errors = False
        try:
            return re2.compile(node.value, options)
        except re2.error as error:
            reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
            hint = "the syntax is RE2's: no look-ahead and no back-references, so that none can hang"
            message = f"{node.text!r} is no regular expression: {reason}"
            self.problems.add(Code.SELECTOR, node.place, message, tree=where, hint=hint, width=len(node.text))
            return None

    def _nodes(self, node: Node | None, where: str) -> tuple[NodeSpec, ...]:
        specs = (self._node(item, f"{where}[{number}]") for number, item in enumerate(_items(node)))
        return tuple(spec for spec in specs if spec is not None)

    def _node(self, node: Node, where: str) -> NodeSpec | None:
        fields = node if isinstance(node, MapNode) else MapNode(node.place, {"path": Entry(node.place, node)})
        path = self._template(fields.get("path"), where, is_path=True, is_glob=True)
        if path is None:
            return None
        optional = fields.get("optional")
        return NodeSpec(
            place=node.place,
            path=path,
            container_path=self._template(fields.get("as"), where, is_path=True),
            permissions=self._permissions(fields.get("permissions"), where),
            optional=isinstance(optional, ScalarNode) and optional.value is True,
        )

    def _permissions(self, node: Node | None, where: str) -> str:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return "rw"
        asked = node.value
        if len(set(asked)) != len(asked):
            message = f"{asked!r} says a letter twice"
            expected = "each of r, w and m at most once, for example rw"
            self.problems.add(
                Code.WRONG_VALUE, node.place, message, tree=where, expected=expected, width=len(node.text)
            )
        return "".join(letter for letter in _PERMISSIONS if letter in asked)

    def _allocate(self, node: Node | None, where: str) -> AllocateSpec:
        mounts = []
        for number, item in enumerate(_items(_get(node, "mounts"))):
            if isinstance(item, MapNode) and (mount := self._mount(item, f"{where}.mounts[{number}]")):
                mounts.append(mount)
        return AllocateSpec(
            env=self._named(_get(node, "env"), f"{where}.env", env_name_fault),
            mounts=tuple(mounts),
            annotations=self._named(_get(node, "annotations"), f"{where}.annotations", annotation_key_fault),
        )

    def _named(self, node: Node | None, where: str, fault: Callable[[str], str]) -> tuple[tuple[str, Template], ...]:
        named = []
        for name, entry in _entries(node):
            if said := fault(name):
                self.problems.add(Code.NAME, entry.key, f"{name!r}: {said}", tree=where, width=len(name))
            template = self._template(entry.value, f"{where}.{name}")
            if template is not None:
                named.append((name, template))
        return tuple(named)

    def _mount(self, node: MapNode, where: str) -> MountSpec | None:
        host_path = self._template(node.get("hostPath"), where, is_path=True)
        container_path = self._template(node.get("containerPath"), where, is_path=True)
        if host_path is None or container_path is None:
            return None
        read_only, optional = node.get("readOnly"), node.get("optional")
        return MountSpec(
            place=_first(node),
            host_path=host_path,
            container_path=container_path,
            read_only=not (isinstance(read_only, ScalarNode) and read_only.value is False),
            optional=isinstance(optional, ScalarNode) and optional.value is True,
        )

    def _template(
        self, node: Node | None, where: str, *, is_path: bool = False, is_glob: bool = False
    ) -> Template | None:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            return None
        try:
            template = Template.parse(node.value)
        except TemplateError as error:
            place = _inside(node, error.offset)
            self.problems.add(Code.TEMPLATE, place, str(error), tree=where, hint=error.hint)
            return None
        for reference in template.references:
            self._check_attribute(reference.name, _inside(node, reference.offset), where)
        if is_path:
            self._check_path(node, template, where, is_glob=is_glob)
        return template

    def _check_attribute(self, name: str, place: Place, where: str) -> None:
        if name in CANDIDATE_ATTRIBUTES:
            return
        known = ", ".join(CANDIDATE_ATTRIBUTES)
        if is_later_attribute(name):
            message = f"the attribute {name!r} is not supported yet"
            hint = f"this version has {known}"
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint, width=len(name))
            return
        hint = closest(name, (*CANDIDATE_ATTRIBUTES, *LATER_ATTRIBUTES)) or f"there are {known}"
        message = f"unknown attribute {name!r}"
        self.problems.add(Code.UNKNOWN_ATTRIBUTE, place, message, tree=where, hint=hint, width=len(name))

    def _check_path(self, node: ScalarNode, template: Template, where: str, *, is_glob: bool) -> None:
        # What the attributes will be is not known here; that the rest makes an absolute path is.
        sample = template.render({name: ("/x" if node.text.startswith("${") else "x",) for name in template.names})
        if not sample.startswith("/"):
            message = f"{node.text!r} is not an absolute path"
            self.problems.add(Code.PATH, node.place, message, tree=where, width=len(node.text))
        elif ".." in sample.split("/"):
            message = f"{node.text!r} climbs with '..'"
            hint = "write the path without it"
            self.problems.add(Code.PATH, node.place, message, tree=where, hint=hint, width=len(node.text))
        elif is_glob:
            try:
                Glob.parse(sample)
            except GlobError as error:
                self.problems.add(Code.GLOB, node.place, f"{node.text!r}: {error}", tree=where, hint=error.hint)


def _get(node: Node | None, key: str) -> Node | None:
    return node.get(key) if isinstance(node, MapNode) else None


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


def _entries(node: Node | None) -> Iterator[tuple[str, Entry]]:
    if isinstance(node, MapNode):
        yield from node.entries.items()


def _texts(node: Node | None) -> list[str]:
    items = [node] if isinstance(node, ScalarNode) else _items(node)
    return [item.text for item in items if isinstance(item, ScalarNode)]


def _number(node: Node | None, default: float) -> float:
    is_number = isinstance(node, ScalarNode) and isinstance(node.value, int | float)
    return float(node.value) if is_number else default  # type: ignore[union-attr, arg-type]


def _place(node: MapNode, key: str) -> Place:
    return node.entries[key].key if key in node.entries else node.place


def _first(node: MapNode) -> Place:
    return next((entry.key for entry in node.entries.values()), node.place)


def _inside(node: ScalarNode, offset: int) -> Place:
    """Return the place of a character of a scalar; of its beginning, where the text is folded over lines."""
    if node.inside.line != node.place.line:
        return node.place
    return Place(node.inside.file, node.inside.line, node.inside.column + offset)
