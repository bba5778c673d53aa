"""Decodes a merged tree into a :class:`genplug.spec.model.Config` and records every semantic error at its location.

It also runs on trees that violate the schema, so that a run reports everything: it skips values of the wrong shape,
which the schema check has reported. The sibling modules decode the large parts of a resource.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.decode.allocate import AllocateDecoder
from genplug.config.decode.command import decode_command
from genplug.config.decode.devices import custom_attribute_names, decode_source
from genplug.config.decode.health import HealthDecoder
from genplug.config.decode.values import ValueDecoder, entries, is_set, items, number
from genplug.config.diagnostics import Budget, Diagnostics
from genplug.config.merge import shared_defaults
from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode, to_python
from genplug.lean_imports import hide_openssl_digests
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.limits import MAX_TOKENS
from genplug.spec.location import SourceLocation
from genplug.spec.model import (
    NO_PUBLISH,
    Config,
    Preference,
    PreferenceSpec,
    PreStartSpec,
    PublishSpec,
    Resource,
    Serve,
    Source,
)
from genplug.spec.names import RESOURCE, SLICE, resource_name_error
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template

with hide_openssl_digests():
    import hashlib

_PRE_START_SECONDS = 20.0


def decode(
    tree: MapNode, files: Sequence[str], diagnostics: Diagnostics, policy: Policy | None = DEFAULT_POLICY
) -> Config:
    """Return the configuration of a tree whose defaults are applied; it is complete if no error was recorded.

    With None as policy, everything is allowed.
    """
    written = dict(entries(tree.get("resources")))
    if not all(_spend_resource(name, entry, diagnostics) for name, entry in written.items()):
        return Config({}, tuple(files), "")
    own = {
        name: custom_attribute_names(entry.value) for name, entry in written.items() if isinstance(entry.value, MapNode)
    }
    # Before the resources: if each resource repeats an error, its first record is shown.
    if (defaults := shared_defaults(tree)) is not None:
        _Decoder(
            diagnostics, ValueDecoder(diagnostics, frozenset().union(*own.values(), {SLICE}), policy), policy
        ).shared(defaults, "defaults")
    resources = {
        name: _Decoder(diagnostics, ValueDecoder(diagnostics, own.get(name, frozenset()), policy), policy).resource(
            name, entry
        )
        for name, entry in written.items()
    }
    _check_aliases(written, resources, diagnostics)
    # The order is significant: of two resources that claim a device node, the first gets it.
    content = json.dumps(to_python(tree))
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Config(resources, tuple(files), digest, policy or DEFAULT_POLICY, content=content)


class _Decoder(Struct, frozen=True):
    diagnostics: Diagnostics
    values: ValueDecoder
    policy: Policy | None

    def resource(self, name: str, entry: MapEntry) -> Resource:
        where = f"resources.{name}"
        node = entry.value if isinstance(entry.value, MapNode) else MapNode(entry.key, {})
        shared = self.shared(node, where)
        sources = tuple(
            decode_source(item, f"{where}.devices[{number}]", self.diagnostics, self.policy)
            for number, item in enumerate(items(node.get("devices")))
            if isinstance(item, MapNode)
        )
        if not shared.allocate.injects_by_cdi and shared.serve is Serve.DEVICE_PLUGIN:
            self._check_keys_of_cdi(sources, node, where)
        if shared.serve is Serve.DRA or "publish" in node.entries:
            # Most configurations do not need the module, and those that it imports.
            from genplug.config.decode.publish import check_serve  # noqa: PLC0415

            check_serve(shared.serve, name, entry, node, where, self.diagnostics)
        return replace(
            shared,
            name=name,
            location=entry.key,
            name_template=self._name(name, entry.key, where),
            sources=sources,
            aliases=tuple(self._aliases(node.get("aliases"), f"{where}.aliases")),
            expected=self._expected(name, node, where),
        )

    def _check_keys_of_cdi(self, sources: Sequence[Source], node: MapNode, where: str) -> None:
        """Record the keys of a resource without ``inject: cdi`` for which only a CDI file has fields."""
        nodes = (device_node for source in sources for device_node in (*source.nodes, *source.companions))
        for location in (device_node.access.location for device_node in nodes):
            if location is not None:
                message = (
                    "'owner', 'group' and 'mode' of a device node require 'inject: cdi': the response to the kubelet "
                    "has no fields for them"
                )
                hint = "write allocate: {inject: cdi}, or make the node accessible with a udev rule on the host"
                self.diagnostics.add(ErrorCode.CONFLICT, location, message, key_path=where, hint=hint)
        allocate = node.get("allocate")
        if isinstance(allocate, MapNode) and "supplementalGroups" in allocate.entries:
            message = "'supplementalGroups' requires 'inject: cdi': the response to the kubelet has no field for groups"
            hint = "write inject: cdi, or set supplementalGroups in the securityContext of the pod"
            location, width = allocate.entries["supplementalGroups"].key, len("supplementalGroups")
            self.diagnostics.add(
                ErrorCode.CONFLICT, location, message, key_path=f"{where}.allocate", hint=hint, width=width
            )

    def _expected(self, name: str, node: MapNode, where: str) -> int | None:
        expect = node.get("expect")
        if not isinstance(expect, MapNode):
            return None
        if "${" in name:
            message = f"'expect' counts the devices of one resource, and {name!r} is a template for several names"
            hint = "remove it, or write a resource with a fixed name"
            location, width = node.entries["expect"].key, len("expect")
            self.diagnostics.add(ErrorCode.CONFLICT, location, message, key_path=where, hint=hint, width=width)
        return int(number(expect.get("min"), 0)) or None

    def shared(self, node: MapNode, where: str) -> Resource:
        """Decode the keys that ``defaults`` and resources have in common."""
        self._check_counting(node, where)
        share, topology = node.get("share"), node.get("topology")
        of_container = self.values.custom | {RESOURCE}
        own = of_container | {SLICE} if "slices" in node.entries else of_container
        return Resource(
            name="",
            location=node.location,
            sources=(),
            replicas=int(number(node.get("replicas"), 1)),
            tokens=int(number(node.get("tokens"), 0)) or None,
            slices=self._slices(node.get("slices"), f"{where}.slices"),
            has_topology=not (isinstance(topology, ScalarNode) and topology.value == "none"),
            overlap=is_set(share, "overlap", value=True),
            max_per_container=int(number(share.get("maxPerContainer") if isinstance(share, MapNode) else None, 0))
            or None,
            distinct=is_set(share, "distinct", value=True),
            preference=self._preference(node.get("preferredAllocation"), f"{where}.preferredAllocation"),
            allocate=AllocateDecoder(self.diagnostics, replace(self.values, custom=own), self.policy).allocate(
                node.get("allocate"), f"{where}.allocate"
            ),
            pre_start=self._pre_start(node.get("preStart"), f"{where}.preStart"),
            health=HealthDecoder(self.diagnostics, self.values, self.policy).decode(
                node.get("health"), f"{where}.health"
            ),
            policy=self.policy or DEFAULT_POLICY,
            serve=Serve.DRA if is_set(node, "serve", value=Serve.DRA.value) else Serve.DEVICE_PLUGIN,
            publish=self._publish(node.get("publish"), f"{where}.publish"),
        )

    def _publish(self, node: Node | None, where: str) -> PublishSpec:
        if not isinstance(node, MapNode):
            return NO_PUBLISH
        from genplug.config.decode.publish import PublishDecoder  # noqa: PLC0415 - see resource

        return PublishDecoder(self.diagnostics, self.values).decode(node, where)

    def _check_counting(self, node: MapNode, where: str) -> None:
        written = [(node.entries[key].key, key) for key in ("replicas", "tokens", "slices") if key in node.entries]
        if len(written) > 1:
            (first, key), (later, other_key) = sorted(written, key=lambda found: (found[0].line, found[0].column))[:2]
            message = (
                f"{key} and {other_key} are mutually exclusive: each device is listed several times, in slices, or all "
                "devices form one pool"
            )
            hint = "remove one of them; to remove a key that comes from 'defaults', set it to null here"
            self.diagnostics.add(
                ErrorCode.CONFLICT,
                later,
                message,
                key_path=where,
                hint=hint,
                width=len(other_key),
                related_location=first,
            )

    def _slices(self, node: Node | None, where: str) -> Template | None:
        if isinstance(node, ScalarNode) and isinstance(node.value, int) and not isinstance(node.value, bool):
            return Template.parse(str(node.value))
        template = self.values.template(node, where)
        # The schema check has reported an empty string.
        if template is not None and isinstance(node, ScalarNode) and node.text and not template.names:
            message, hint = (
                f"{node.text!r} is not a number of slices",
                'write an integer or a template: "${attr.core_count}"',
            )
            self.diagnostics.add(
                ErrorCode.WRONG_VALUE, node.at(0), message, key_path=where, hint=hint, width=len(node.text)
            )
        return template

    def _preference(self, node: Node | None, where: str) -> PreferenceSpec:
        if not isinstance(node, MapNode):
            return PreferenceSpec()
        written = node.get("policy")
        is_known = isinstance(written, ScalarNode) and written.value in list(Preference)
        policy = Preference(str(written.value)) if is_known and isinstance(written, ScalarNode) else Preference.PACKED
        return PreferenceSpec(policy, self.values.template(node.get("by"), f"{where}.by"), is_explicit=True)

    def _pre_start(self, node: Node | None, where: str) -> PreStartSpec | None:
        written = node.get("exec") if isinstance(node, MapNode) else None
        command = written.get("command") if isinstance(written, MapNode) else None
        values = replace(self.values, custom=self.values.custom | {RESOURCE})
        arguments = decode_command(command, f"{where}.exec.command", values, self.policy, self.diagnostics)
        if not isinstance(node, MapNode) or not arguments:
            return None
        return PreStartSpec(node.location, arguments, number(node.get("timeoutSeconds"), _PRE_START_SECONDS))

    def _aliases(self, node: Node | None, where: str) -> Iterator[str]:
        for item in items(node):
            if isinstance(item, ScalarNode) and isinstance(item.value, str):
                self._check_resource_name(item.text, item.at(0), where)
                yield item.text

    def _name(self, name: str, location: SourceLocation, where: str) -> Template | None:
        """Return the template of a resource name, or None for a plain name; check both."""
        if "${" not in name:
            self._check_resource_name(name, location, where)
            return None
        template = self.values.template(ScalarNode(location, name, name, None), where)
        if template is None:
            return None
        sample = template.render(dict.fromkeys(template.names, ("x",)))
        if "${" in name.partition("/")[0]:
            message = f"{name!r}: the domain before '/' cannot contain a template"
        else:
            error = resource_name_error(sample)
            message = f"{name!r} renders to {sample!r} or longer: {error}" if error else ""
        if message:
            hint = "write a domain that you own and a name: vendor.example/thing-${model}"
            self.diagnostics.add(ErrorCode.RESOURCE_NAME, location, message, key_path=where, hint=hint, width=len(name))
        return template

    def _check_resource_name(self, name: str, location: SourceLocation, where: str) -> None:
        width = max(len(name), 1)
        if error := resource_name_error(name):
            hint = "write a domain that you own and a name: vendor.example/thing"
            self.diagnostics.add(
                ErrorCode.RESOURCE_NAME, location, f"{name!r}: {error}", key_path=where, hint=hint, width=width
            )
        elif self.policy is not None and (error := self.policy.resource_error(name)):
            message, hint = f"the resource {name!r} is {error}", self.policy.help
            self.diagnostics.add(ErrorCode.NOT_ALLOWED, location, message, key_path=where, hint=hint, width=width)


def _spend_resource(name: str, entry: MapEntry, diagnostics: Diagnostics) -> bool:
    """Count a resource, its aliases and its tokens; return whether they are within the limits."""
    where, width = f"resources.{name}", max(len(name), 1)
    node = entry.value if isinstance(entry.value, MapNode) else None
    names = 1 + len(items(node.get("aliases") if node is not None else None))
    tokens = number(node.get("tokens") if node is not None else None, 0)
    # The schema check has reported a number out of its range.
    counted = int(tokens) if 0 <= tokens <= MAX_TOKENS else 0
    within = diagnostics.spend(Budget.RESOURCES, names, entry.key, key_path=where, width=width)
    return diagnostics.spend(Budget.TOKENS, counted, entry.key, key_path=where, width=width) and within


def _check_aliases(
    written: Mapping[str, MapEntry], resources: Mapping[str, Resource], diagnostics: Diagnostics
) -> None:
    """Record aliases that are names of other resources, and aliases of resources that cannot have any."""
    taken = {name: entry.key for name, entry in written.items()}
    for name, resource in resources.items():
        if not resource.aliases or not isinstance(node := written[name].value, MapNode):
            continue
        tree, location = f"resources.{name}.aliases", node.entries["aliases"].key
        if resource.tokens is not None or resource.name_template is not None:
            what = "tokens" if resource.tokens is not None else "a templated name"
            message = f"a resource with {what} cannot have aliases"
            hint = (
                "remove the aliases, or add a second resource with the same devices; set share: {overlap: true} in both"
            )
            diagnostics.add(ErrorCode.CONFLICT, location, message, key_path=tree, hint=hint, width=len("aliases"))
        for item in items(node.get("aliases")):
            alias = item.text if isinstance(item, ScalarNode) else ""
            if (first := taken.setdefault(alias, item.location)) is not item.location:
                message, hint = f"{alias!r} is already used as a resource name", "use each name once"
                diagnostics.add(
                    ErrorCode.CONFLICT,
                    item.location,
                    message,
                    key_path=tree,
                    hint=hint,
                    width=len(alias),
                    related_location=first,
                )
