"""Decodes ``publish``, and checks the keys that Dynamic Resource Allocation (DRA) cannot serve."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from genplug.config.decode.values import ValueDecoder, entries, is_set, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.model import AttributeSpec, AttributeType, CapacitySpec, PublishSpec, Resource, Serve
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.published_values import (
    MAX_OWN_VALUES,
    MAX_VALUE_BYTES,
    RESERVED_NAMES,
    STANDARD_DOMAIN,
    is_dns_label,
    published_name_error,
    quantity_error,
    value_error,
)
from genplug.spec.template import Template, TemplateError

_NAME_HINT = "write an identifier, for example model, or a domain and an identifier: vendor.example/model"
_TYPES = tuple(AttributeType)
_TYPE_NAMES = ", ".join(f"'{kind}'" for kind in _TYPES[:-1]) + f" and '{_TYPES[-1]}'"
_SAMPLE_ADDRESS = "0000:03:00.1"
"""A value of ``pci.address``, the attribute that verbatim IDs of network devices are made of."""


class PublishDecoder(Struct, frozen=True):
    """Decodes ``publish``."""

    diagnostics: Diagnostics
    values: ValueDecoder

    def decode(self, node: MapNode, where: str) -> PublishSpec:
        """Return the decoded value."""
        spec = PublishSpec(
            tuple(self._attributes(node.get("attributes"), f"{where}.attributes")),
            tuple(self._capacities(node.get("capacity"), f"{where}.capacity")),
        )
        self._check_number(node, where)
        return spec

    def _check_number(self, node: MapNode, where: str) -> None:
        written = [(key, name, entry) for key in ("attributes", "capacity") for name, entry in entries(node.get(key))]
        if len(written) > MAX_OWN_VALUES:
            key, name, entry = written[MAX_OWN_VALUES]
            message = (
                f"{len(written)} attributes and capacities, at most {MAX_OWN_VALUES} are allowed: a device has at most "
                f"32, and genplug publishes {len(RESERVED_NAMES)} of its own and up to 3 standard attributes"
            )
            self._add(entry, name, message, f"{where}.{key}", "remove those that no claim selects by")

    def _attributes(self, node: Node | None, where: str) -> Iterator[AttributeSpec]:
        for name, entry in entries(node):
            self._check_name(name, entry, where, is_attribute=True)
            if (attribute := self._attribute(name, entry, f"{where}.{name}")) is not None:
                yield attribute

    def _attribute(self, name: str, entry: MapEntry, where: str) -> AttributeSpec | None:
        node, kind = entry.value, AttributeType.STRING
        value: Node | None = node
        if isinstance(node, MapNode):
            written = [kind for kind in _TYPES if kind in node.entries]
            if len(written) != 1:
                found = " and ".join(f"'{kind}'" for kind in written) or "none of them"
                message = f"expected exactly one of {_TYPE_NAMES}, found {found}"
                hint = 'write the value of the attribute under the key of its type: {int: "${attr.port_count}"}'
                self._add(entry, name, message, where, hint)
                return None
            kind, value = written[0], node.get(written[0])
            where = f"{where}.{kind}"
        template = self._template(value, where)
        if template is None:
            return None
        if isinstance(value, ScalarNode) and not template.names and (error := value_error(kind, template.render({}))):
            self._add_value(value, error, where, _value_hint(kind))
        optional = is_set(node, "optional", value=True)
        return AttributeSpec(entry.key, name, template, kind, optional)

    def _capacities(self, node: Node | None, where: str) -> Iterator[CapacitySpec]:
        for name, entry in entries(node):
            self._check_name(name, entry, where, is_attribute=False)
            template = self._template(entry.value, f"{where}.{name}")
            if template is None or not isinstance(entry.value, ScalarNode):
                continue
            if not template.names and (error := quantity_error(template.render({}))):
                self._add_value(entry.value, error, f"{where}.{name}", "write a number or a quantity of at least 0")
            yield CapacitySpec(entry.key, name, template)

    def _template(self, node: Node | None, where: str) -> Template | None:
        """Return the template of a string, or of a number or a boolean as text."""
        if isinstance(node, ScalarNode) and isinstance(node.value, bool):
            return Template.parse(str(node.value).lower())
        if isinstance(node, ScalarNode) and isinstance(node.value, int | float):
            # The schema accepts a float without a fraction as an integer.
            return Template.parse(str(int(node.value)))
        return self.values.template(node, where)

    def _check_name(self, name: str, entry: MapEntry, where: str, *, is_attribute: bool) -> None:
        domain = name.rpartition("/")[0]
        if error := published_name_error(name):
            self._add(entry, name, f"{name!r}: {error}", where, _NAME_HINT)
        elif is_attribute and name in RESERVED_NAMES:
            message = f"genplug publishes the attribute {name!r} of every device"
            self._add(entry, name, message, where, "use another name")
        elif domain == STANDARD_DOMAIN:
            message = f"{name!r}: the names of the domain {STANDARD_DOMAIN!r} are reserved for Kubernetes"
            hint = "remove it: genplug publishes pciBusID, pcieRoot and numaNode of devices that have them"
            self._add(entry, name, message, where, hint)

    def _add(self, entry: MapEntry, name: str, message: str, where: str, hint: str) -> None:
        width = max(len(name), 1)
        self.diagnostics.add(ErrorCode.DRA, entry.key, message, key_path=where, hint=hint, width=width)

    def _add_value(self, node: ScalarNode, error: str, where: str, hint: str) -> None:
        message, width = f"{node.text!r} {error}", max(len(node.text), 1)
        self.diagnostics.add(ErrorCode.DRA, node.at(0), message, key_path=where, hint=hint, width=width)


def check_domains(resources: Mapping[str, Resource], driver: str, diagnostics: Diagnostics) -> None:
    """Record the names under ``publish`` that have the domain of the driver.

    The API server adds the domain of the driver to names without a domain, so that both forms are the same name.
    """
    for resource_name, resource in resources.items():
        for key, specs in (("attributes", resource.publish.attributes), ("capacity", resource.publish.capacity)):
            for spec in specs:
                domain, _, identifier = spec.name.rpartition("/")
                if domain == driver:
                    message = f"{spec.name!r}: names of the driver's domain {driver!r} are written without the domain"
                    diagnostics.add(
                        ErrorCode.DRA,
                        spec.location,
                        message,
                        key_path=f"resources.{resource_name}.publish.{key}",
                        hint=f"write {identifier!r}",
                        width=len(spec.name),
                    )


def check_serve(  # noqa: PLR0913, PLR0917 - a resource, and where it is
    serve: Serve, name: str, entry: MapEntry, node: MapNode, where: str, diagnostics: Diagnostics
) -> None:
    """Record the keys of a resource that do not fit the API that serves it.

    ``node`` has the keys of the resource, those of ``defaults`` included.
    """
    check = _ServeCheck(node, where, diagnostics)
    if serve is Serve.DRA:
        check.check_dra(name, entry)
    else:
        check.check_device_plugin()


class _ServeCheck(Struct, frozen=True):
    node: MapNode
    where: str
    diagnostics: Diagnostics

    def check_device_plugin(self) -> None:
        message = "'publish' requires 'serve: dra': the device plugin API has no fields for attributes and capacities"
        hint = "write serve: dra, or remove 'publish'; to remove a key that comes from 'defaults', set it to null here"
        self._refuse(self.node, "publish", message, "", hint)

    def check_dra(self, name: str, entry: MapEntry) -> None:
        self._check_resource_name(name, entry)
        self._check_allocate()
        self._check_share()
        self._check_preference()
        for number, source in enumerate(items(self.node.get("devices"))):
            if isinstance(source, MapNode):
                self._check_id(source, f"devices[{number}]")

    def _check_resource_name(self, name: str, entry: MapEntry) -> None:
        shortest = len("".join(part for part in _parse(name).parts if isinstance(part, str)))
        if shortest > MAX_VALUE_BYTES:
            message = (
                f"a resource name of {shortest} characters cannot be used with 'serve: dra', which allows "
                f"{MAX_VALUE_BYTES}: the attribute 'resource' of each device contains it"
            )
            hint = "shorten the name, or write serve: devicePlugin"
            self._add(entry, name, message, "", hint)

    def _check_allocate(self) -> None:
        allocate = _mapping(self.node.get("allocate"))
        message = (
            "'annotations' cannot be used with 'serve: dra': CDI, by which devices are injected, has no annotations"
        )
        hint = "remove it, or write serve: devicePlugin; programs in the container can read values from 'env'"
        self._refuse(allocate, "annotations", message, "allocate", hint)
        if is_set(allocate, "inject", value="nodes"):
            message = "'inject: nodes' cannot be used with 'serve: dra': devices are always injected by CDI"
            self._refuse(allocate, "inject", message, "allocate", "remove 'inject', or write serve: devicePlugin")

    def _check_share(self) -> None:
        share = _mapping(self.node.get("share"))
        message = (
            "'maxPerContainer' cannot be used with 'serve: dra': the scheduler selects the devices, and the claim of a "
            "pod states how many"
        )
        hint = "remove it; a ResourceQuota can limit the devices of a DeviceClass in a namespace"
        self._refuse(share, "maxPerContainer", message, "share", hint)
        if is_set(share, "distinct", value=True):
            message = "'distinct' cannot be used with 'serve: dra': the scheduler selects the devices of a claim"
            hint = f"remove it; a claim requests it with constraints: [{{distinctAttribute: {DRIVER_DOMAIN}/device}}]"
            self._refuse(share, "distinct", message, "share", hint)

    def _check_preference(self) -> None:
        preference = _mapping(self.node.get("preferredAllocation"))
        for policy in ("spread", "contiguous"):
            if is_set(preference, "policy", value=policy):
                message = (
                    f"'policy: {policy}' cannot be used with 'serve: dra': the scheduler selects the first free "
                    "devices in the order in which they are published"
                )
                hint = "write policy: packed, which sorts the devices by group, or policy: none"
                self._refuse(preference, "policy", message, "preferredAllocation", hint)

    def _check_id(self, source: MapNode, where: str) -> None:
        written = source.get("id")
        if not is_set(source, "verbatimId", value=True) or not isinstance(written, ScalarNode):
            return
        template = _parse(written.text)
        values = {name: (_SAMPLE_ADDRESS if name == "pci.address" else "x",) for name in template.names}
        sample = template.render(values)
        if not is_dns_label(sample):
            message = (
                f"'verbatimId' cannot be used with 'serve: dra' for the IDs of {written.text!r}, for example "
                f"{sample!r}: the name of a published device is a DNS label"
            )
            hint = (
                f"remove 'verbatimId'; programs read the attribute {STANDARD_DOMAIN}/pciBusID, and Multus reads "
                "k8s.cni.cncf.io/deviceID, which publish.attributes can set"
            )
            self._refuse(source, "verbatimId", message, where, hint)

    def _refuse(self, node: Node | None, key: str, message: str, where: str, hint: str) -> None:
        """Record an error at a key if a mapping has it."""
        if isinstance(node, MapNode) and key in node.entries:
            self._add(node.entries[key], key, message, where, hint)

    def _add(self, entry: MapEntry, name: str, message: str, where: str, hint: str) -> None:
        path = f"{self.where}.{where}" if where else self.where
        width = max(len(name), 1)
        self.diagnostics.add(ErrorCode.DRA, entry.key, message, key_path=path, hint=hint, width=width)


def _mapping(node: Node | None) -> MapNode | None:
    return node if isinstance(node, MapNode) else None


def _parse(text: str) -> Template:
    """Return a template, and one without references for a text whose error has been recorded."""
    try:
        return Template.parse(text)
    except TemplateError:
        return Template("", ())


def _value_hint(kind: AttributeType) -> str:
    hints: Mapping[AttributeType, str] = {
        AttributeType.STRING: "shorten it",
        AttributeType.INT: "write an integer, or publish the text with 'string'",
        AttributeType.BOOL: "write true or false, or publish the text with 'string'",
        AttributeType.VERSION: "write MAJOR.MINOR.PATCH, or publish the text with 'string'",
    }
    return hints[kind]
