"""The one decoder: a merged tree in, the frozen model out, and every mistake of meaning noted at its place.

It runs on trees that the schema found fault with too, so that one run tells everything; what has the wrong shape is
passed over here, because the schema has said so. ``unsupported.py`` refuses what this version cannot do, ``texts.py``
reads templates, globs and selectors.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from genplug.config.document import Entry, ListNode, MapNode, Node, ScalarNode, plain
from genplug.config.globs import Glob
from genplug.config.merge import shared_defaults
from genplug.config.model import (
    AllocateSpec,
    CandidateType,
    Config,
    HealthSpec,
    MountSpec,
    NodeSpec,
    Preference,
    PreferenceSpec,
    Resource,
    Source,
)
from genplug.config.names import annotation_key_fault, env_name_fault, resource_name_fault
from genplug.config.place import Place
from genplug.config.policy import DEFAULT_POLICY, Policy
from genplug.config.problem import Code, Problems
from genplug.config.template import Template
from genplug.config.texts import Texts
from genplug.config.unsupported import note_unsupported, own_attributes

_PERMISSIONS = "rwm"
_MOST_VARIABLE = 131_071
"""Bytes of ``NAME=value``; with a longer one the kernel starts no program (execve's MAX_ARG_STRLEN)."""
_MOST_ANSWER = 4 << 20
"""Bytes of an answer to Allocate that the kubelet takes (contract 1.5)."""
_DEVICES = (CandidateType.DEVICE, CandidateType.CHAR, CandidateType.BLOCK)


def decode(tree: MapNode, files: Sequence[str], problems: Problems, policy: Policy | None = DEFAULT_POLICY) -> Config:
    """Return the model of a tree whose defaults are laid under its resources; it is whole if nothing was noted.

    Without a policy nothing is refused as not allowed.
    """
    decoder = _Decoder(problems, Texts(problems, own_attributes(tree)), policy)
    # First: of a mistake that each resource repeats, the one noted first is shown.
    if (defaults := shared_defaults(tree)) is not None:
        decoder.check_shared(defaults, "defaults")
    resources = {name: decoder.resource(name, entry) for name, entry in _entries(tree.get("resources"))}
    # The order counts: of two resources that claim one node, the first keeps it.
    content = json.dumps(plain(tree)).encode()
    return Config(resources, tuple(files), hashlib.sha256(content).hexdigest(), policy or DEFAULT_POLICY)


@frozen
class _Decoder:
    problems: Problems
    texts: Texts
    policy: Policy | None

    def resource(self, name: str, entry: Entry) -> Resource:
        where = f"resources.{name}"
        self._check_resource_name(name, entry.key, where)
        node = entry.value if isinstance(entry.value, MapNode) else MapNode(entry.key, {})
        sources = tuple(
            self._source(item, f"{where}.devices[{number}]")
            for number, item in enumerate(_items(node.get("devices")))
            if isinstance(item, MapNode)
        )
        allocate, health = self.check_shared(node, where)
        share = node.get("share")
        return Resource(
            name=name,
            place=entry.key,
            sources=sources,
            replicas=int(_number(node.get("replicas"), 1)),
            tokens=int(_number(node.get("tokens"), 0)) or None,
            overlap=_is(node.entries.get("share"), "overlap", value=True),
            most_per_container=int(_number(share.get("maxPerContainer"), 0)) or None
            if isinstance(share, MapNode)
            else None,
            distinct=_is(node.entries.get("share"), "distinct", value=True),
            preference=self._preference(node.get("preferredAllocation"), f"{where}.preferredAllocation"),
            allocate=allocate,
            health=health,
            policy=self.policy or DEFAULT_POLICY,
        )

    def check_shared(self, node: MapNode, where: str) -> tuple[AllocateSpec, HealthSpec]:
        """Read what ``defaults`` and resources have in common, and note what is wrong in it."""
        note_unsupported(node, where, self.problems)
        replicas, tokens = node.entries.get("replicas"), node.entries.get("tokens")
        if replicas and tokens:
            message = "replicas and tokens exclude each other: a device is listed several times, or all are one pool"
            hint = "remove one; one that comes from 'defaults' is removed by writing it here as null"
            later, earlier = sorted((replicas.key, tokens.key), key=lambda key: (key.line, key.column), reverse=True)
            width = len("tokens" if later == tokens.key else "replicas")
            self.problems.add(Code.CONFLICT, later, message, tree=where, hint=hint, width=width, first=earlier)
        health = node.get("health")
        keep = health.get("keepGoneSeconds") if isinstance(health, MapNode) else None
        allocate = self._allocate(node.get("allocate"), f"{where}.allocate")
        return allocate, HealthSpec(_number(keep, HealthSpec().keep_gone_seconds))

    def _preference(self, node: Node | None, where: str) -> PreferenceSpec:
        if not isinstance(node, MapNode):
            return PreferenceSpec()
        written = node.get("policy")
        is_known = isinstance(written, ScalarNode) and written.value in list(Preference)
        # Who says by what wants a preference.
        policy = Preference(str(written.value)) if is_known and isinstance(written, ScalarNode) else Preference.PACKED
        return PreferenceSpec(policy, self.texts.template(node.get("by"), f"{where}.by"))

    def _check_resource_name(self, name: str, place: Place, where: str) -> None:
        width = max(len(name), 1)
        if "${" in name:
            message = "resource names with templates are not supported yet"
            hint = "write one resource for each name, with a 'where' that selects its devices"
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint, width=width)
        elif fault := resource_name_fault(name):
            hint = "write a domain of your own and a name: vendor.example/thing"
            self.problems.add(Code.RESOURCE_NAME, place, f"{name!r}: {fault}", tree=where, hint=hint, width=width)
        elif self.policy is not None and (fault := self.policy.resource_fault(name)):
            message, hint = f"the resource {name!r} is {fault}", self.policy.help
            self.problems.add(Code.NOT_ALLOWED, place, message, tree=where, hint=hint, width=width)

    def _source(self, node: MapNode, where: str) -> Source:
        globs = self.texts.globs(node.get("glob"), f"{where}.glob")
        nodes = self._nodes(node.get("nodes"), f"{where}.nodes")
        return Source(
            place=_first(node),
            globs=globs,
            exclude=self.texts.globs(node.get("exclude"), f"{where}.exclude"),
            type=self._type(node, globs, where),
            where=tuple(self.texts.conditions(node.get("where"), f"{where}.where")),
            group_by=self.texts.template(node.get("groupBy"), f"{where}.groupBy"),
            nodes=nodes,
            companions=self._nodes(node.get("with"), f"{where}.with"),
            id=self.texts.template(node.get("id"), f"{where}.id"),
        )

    def _type(self, node: MapNode, globs: Sequence[Glob], where: str) -> CandidateType:
        written = node.get("type")
        if isinstance(written, ScalarNode) and written.value in list(CandidateType):
            kind, place = CandidateType(str(written.value)), written.at(0)
            message = f"candidates of type {kind.value!r} without 'nodes' are not supported yet"
            hint = "name the device nodes under 'nodes', or take char, block or device"
        else:
            is_dev = all(segments[0].text == "dev" for glob in globs for segments in glob)
            kind = CandidateType.DEVICE if is_dev else CandidateType.ANY
            place = node.entries["glob"].key if "glob" in node.entries else node.place
            message = "a glob outside /dev without 'nodes' is not supported yet"
            hint = "name the device nodes under 'nodes', or write a glob under /dev"
        if kind not in _DEVICES and globs and not _items(node.get("nodes")):
            self.problems.add(Code.NOT_SUPPORTED, place, message, tree=where, hint=hint, width=4)
        return kind

    def _nodes(self, node: Node | None, where: str) -> tuple[NodeSpec, ...]:
        specs = (self._node(item, f"{where}[{number}]") for number, item in enumerate(_items(node)))
        return tuple(spec for spec in specs if spec is not None)

    def _node(self, node: Node, where: str) -> NodeSpec | None:
        entry = Entry(node.place, node)
        fields = node if isinstance(node, MapNode) else MapNode(node.place, {"path": entry})
        path = self.texts.path(fields.get("path"), where, is_glob=True)
        container_path = self.texts.path(fields.get("as"), where)
        asked = fields.get("permissions")
        letters = asked.text if isinstance(asked, ScalarNode) else "rw"
        permissions = "".join(letter for letter in _PERMISSIONS if letter in letters)
        if path is None:
            return None
        optional = _is(entry, "optional", value=True)
        return NodeSpec(node.place, path, container_path, permissions, optional)

    def _allocate(self, node: Node | None, where: str) -> AllocateSpec:
        if not isinstance(node, MapNode):
            return AllocateSpec()
        spec = AllocateSpec(
            env=self._named(node.get("env"), f"{where}.env", env_name_fault),
            mounts=tuple(self._mounts(node.get("mounts"), f"{where}.mounts")),
            annotations=self._named(node.get("annotations"), f"{where}.annotations", annotation_key_fault),
        )
        self._check_sizes(spec, node, where)
        return spec

    def _check_sizes(self, spec: AllocateSpec, node: MapNode, where: str) -> None:
        places = {name: entry.key for name, entry in _entries(node.get("env"))}
        for name, template in spec.env:
            if len(f"{name}={template.text}".encode()) > _MOST_VARIABLE:
                message = f"{name!r} is longer than {_MOST_VARIABLE} bytes: no program could be started with it"
                tree, hint = f"{where}.env", "put it into a file, and mount that"
                self.problems.add(Code.WRONG_VALUE, places[name], message, tree=tree, hint=hint, width=len(name))
        paths = [template.text for mount in spec.mounts for template in (mount.host_path, mount.container_path)]
        named = [f"{name}{template.text}" for name, template in (*spec.env, *spec.annotations)]
        if len("".join((*paths, *named)).encode()) > _MOST_ANSWER:
            message = f"a container would be given more than the {_MOST_ANSWER >> 20} MiB that the kubelet takes"
            self.problems.add(Code.WRONG_VALUE, _first(node), message, tree=where, hint="put it into files")

    def _named(self, node: Node | None, where: str, fault: Callable[[str], str]) -> tuple[tuple[str, Template], ...]:
        named = []
        for name, entry in _entries(node):
            if said := fault(name):
                width = max(len(name), 1)
                self.problems.add(Code.NAME, entry.key, f"{name!r}: {said}", tree=where, width=width)
            template = self.texts.template(entry.value, f"{where}.{name}")
            if template is not None:
                named.append((name, template))
        return tuple(named)

    def _mounts(self, node: Node | None, where: str) -> Iterator[MountSpec]:
        taken: dict[str, Place] = {}
        for number, item in enumerate(_items(node)):
            mount = self._mount(item, f"{where}[{number}]") if isinstance(item, MapNode) else None
            if mount is None:
                continue
            target = posixpath.normpath(mount.container_path.text)
            if target in taken:
                message = f"two mounts of one container at {target!r}: the runtime would hide one under the other"
                hint = "give one another containerPath"
                first = taken[target]
                self.problems.add(Code.CONFLICT, mount.place, message, tree=where, hint=hint, first=first)
            taken.setdefault(target, mount.place)
            yield mount

    def _mount(self, node: MapNode, where: str) -> MountSpec | None:
        host_path = self.texts.path(node.get("hostPath"), where)
        container_path = self.texts.path(node.get("containerPath"), where)
        if host_path is None or container_path is None:
            return None
        if not container_path.text.strip("/"):
            message, hint = "this would cover the container's whole file system", "name a folder in it"
            place = node.entries["containerPath"].value.place
            self.problems.add(Code.PATH, place, message, tree=where, hint=hint)
        entry = Entry(node.place, node)
        read_only, optional = not _is(entry, "readOnly", value=False), _is(entry, "optional", value=True)
        self._check_mount(node.entries["hostPath"].value, host_path, where, read_only=read_only)
        return MountSpec(_first(node), host_path, container_path, read_only, optional)

    def _check_mount(self, node: Node, host_path: Template, where: str, *, read_only: bool) -> None:
        # What a template becomes is known, and asked about, when a container is to get it.
        if self.policy is None or not isinstance(node, ScalarNode) or (host_path.names and self.policy.allows_mounts):
            return
        path = "/" if host_path.names else posixpath.normpath(host_path.render({}))
        if path.startswith("/") and (fault := self.policy.mount_fault(path, read_only=read_only)):
            message, width = f"the mount of {node.text!r} is {fault}", len(node.text)
            self.problems.add(Code.NOT_ALLOWED, node.at(0), message, tree=where, hint=self.policy.help, width=width)


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


def _entries(node: Node | None) -> Iterator[tuple[str, Entry]]:
    if isinstance(node, MapNode):
        yield from node.entries.items()


def _is(entry: Entry | None, key: str, *, value: bool) -> bool:
    """Say whether the map of an entry has a key with this truth value."""
    node = entry.value.get(key) if entry is not None and isinstance(entry.value, MapNode) else None
    return isinstance(node, ScalarNode) and node.value is value


def _number(node: Node | None, default: float) -> float:
    return float(node.value) if isinstance(node, ScalarNode) and isinstance(node.value, int | float) else default


def _first(node: MapNode) -> Place:
    return next((entry.key for entry in node.entries.values()), node.place)
