"""Decodes ``allocate``: environment, mounts, annotations and CDI names, and checks them against the policy."""

import posixpath
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.decode.values import ValueDecoder, entries, first_key_location, integer, is_set, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode
from genplug.spec.container_rules import mount_target_error
from genplug.spec.container_text import ContainerText, VariableSpec
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.limits import MAX_RESPONSE_BYTES, MAX_VARIABLE_BYTES
from genplug.spec.location import SourceLocation
from genplug.spec.model import AllocateSpec, MountSpec
from genplug.spec.names import SLICE, annotation_key_error, cdi_device_error, env_name_error
from genplug.spec.policy import Policy
from genplug.spec.template import Template


class AllocateDecoder(Struct, frozen=True):
    """Decodes ``allocate``. With None as policy, everything is allowed."""

    diagnostics: Diagnostics
    values: ValueDecoder
    policy: Policy | None

    def allocate(self, node: Node | None, where: str) -> AllocateSpec:
        """Return the decoded value; the defaults if the key is missing."""
        if not isinstance(node, MapNode):
            return AllocateSpec()
        inject = node.get("inject")
        spec = AllocateSpec(
            env=tuple(self._variables(node.get("env"), f"{where}.env")),
            mounts=tuple(self._mounts(node.get("mounts"), f"{where}.mounts")),
            annotations=tuple(self._annotations(node.get("annotations"), f"{where}.annotations")),
            cdi_devices=tuple(self._cdi_devices(node.get("cdiDevices"), f"{where}.cdiDevices")),
            injects_by_cdi=isinstance(inject, ScalarNode) and inject.value == "cdi",
            supplemental_groups=tuple(self._groups(node.get("supplementalGroups"), f"{where}.supplementalGroups")),
            inject_location=_key_location(node, "inject"),
            cdi_devices_location=_key_location(node, "cdiDevices"),
        )
        self._check_sizes(spec, node, where)
        return spec

    def _check_sizes(self, spec: AllocateSpec, node: MapNode, where: str) -> None:
        locations = {name: entry.key for name, entry in entries(node.get("env"))}
        for variable in spec.env:
            name = variable.name.text
            if len(f"{name}={variable.value.text}".encode()) > MAX_VARIABLE_BYTES:
                message = (
                    f"{name!r} is longer than {MAX_VARIABLE_BYTES} bytes: the kernel would not start a program with it"
                )
                tree, hint = f"{where}.env", "put the value into a file and mount the file"
                self.diagnostics.add(
                    ErrorCode.WRONG_VALUE, locations[name], message, key_path=tree, hint=hint, width=len(name)
                )
        paths = [template.text for mount in spec.mounts for template in (mount.host_path, mount.container_path)]
        named = [f"{variable.name.text}{variable.value.text}" for variable in spec.env]
        named += [f"{name}{text.text}" for name, text in spec.annotations]
        if len("".join((*paths, *named)).encode()) > MAX_RESPONSE_BYTES:
            message = f"the Allocate response would exceed the {MAX_RESPONSE_BYTES >> 20} MiB that the kubelet accepts"
            self.diagnostics.add(
                ErrorCode.WRONG_VALUE,
                first_key_location(node),
                message,
                key_path=where,
                hint="move long values into files and mount the files",
            )

    def _variables(self, node: Node | None, where: str) -> Iterator[VariableSpec]:
        for text, entry in entries(node):
            name = self._variable_name(text, entry, where)
            value = self._text(entry.value, f"{where}.{text}")
            if name is None or value is None:
                continue
            # A template is checked when it is rendered.
            literal = None if value.template.names else value.render(({},))
            if self.policy is not None and not name.names and (error := self.policy.env_error(text, literal)):
                message, width = f"the environment variable {text!r} is {error}", max(len(text), 1)
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, entry.key, message, key_path=where, hint=self.policy.help, width=width
                )
            yield VariableSpec(name, value)

    def _variable_name(self, text: str, entry: MapEntry, where: str) -> Template | None:
        """Return the template of the name of an environment variable; record an error for an invalid name."""
        template = self.values.template(ScalarNode(entry.key, text, text, None), where)
        if template is None:
            return None
        sample = template.render(dict.fromkeys(template.names, ("X",)))
        if error := env_name_error(sample):
            message = f"{text!r}: {error}" if sample == text else f"{text!r} renders to {sample!r} or longer: {error}"
            width = max(len(text), 1)
            self.diagnostics.add(ErrorCode.NAME, entry.key, message, key_path=where, width=width)
        return template

    def _annotations(self, node: Node | None, where: str) -> Iterator[tuple[str, ContainerText]]:
        for key, entry in entries(node):
            width = max(len(key), 1)
            if error := annotation_key_error(key):
                self.diagnostics.add(ErrorCode.NAME, entry.key, f"{key!r}: {error}", key_path=where, width=width)
            elif self.policy is not None and (error := self.policy.annotation_error(key)):
                message = f"the annotation {key!r} is {error}"
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, entry.key, message, key_path=where, hint=self.policy.help, width=width
                )
            text = self._text(entry.value, f"{where}.{key}")
            if text is not None:
                yield key, text

    def _text(self, node: Node, where: str) -> ContainerText | None:
        """Return a value that is a template, or a map with a template for each device."""
        if not isinstance(node, MapNode):
            template = self.values.template(node, where)
            return ContainerText(template) if template is not None else None
        template = self.values.template(node.get("each"), f"{where}.each")
        if template is None:
            return None
        parts = {key: part for key in ("join", "prefix", "suffix") if (part := node.get(key)) is not None}
        texts = {key: part.text for key, part in parts.items() if isinstance(part, ScalarNode)}
        return ContainerText(
            template,
            is_each=True,
            separator=texts.get("join", ","),
            prefix=texts.get("prefix", ""),
            suffix=texts.get("suffix", ""),
        )

    def _cdi_devices(self, node: Node | None, where: str) -> Iterator[Template]:
        for item in items(node):
            template = self.values.template(item, where)
            if template is None or not isinstance(item, ScalarNode):
                continue
            sample = template.render(dict.fromkeys(template.names, ("x",)))
            width = max(len(item.text), 1)
            if error := cdi_device_error(sample):
                hint = "write a qualified CDI device name: vendor.example/class=device"
                message = f"{item.text!r}: {error}"
                self.diagnostics.add(ErrorCode.NAME, item.at(0), message, key_path=where, hint=hint, width=width)
            elif self.policy is not None and (error := self._cdi_denial(template, sample, self.policy)):
                message = f"the CDI device {item.text!r} is {error}"
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, item.at(0), message, key_path=where, hint=self.policy.help, width=width
                )
            else:
                yield template

    @staticmethod
    def _cdi_denial(template: Template, sample: str, policy: Policy) -> str:
        # A template is checked when it is rendered, unless the policy allows no name.
        return "" if template.names and policy.cdi else policy.cdi_error(sample)

    def _groups(self, node: Node | None, where: str) -> Iterator[int]:
        for item in items(node):
            group = integer(item)
            # The schema check has reported other values.
            if group is None or group < 1 or not isinstance(item, ScalarNode):
                continue
            if self.policy is not None and (error := self.policy.group_error(group)):
                message, width = f"the group {group} is {error}", len(item.text)
                self.diagnostics.add(
                    ErrorCode.NOT_ALLOWED, item.at(0), message, key_path=where, hint=self.policy.help, width=width
                )
            else:
                yield group

    def _mounts(self, node: Node | None, where: str) -> Iterator[MountSpec]:
        taken: dict[str, SourceLocation] = {}
        for number, item in enumerate(items(node)):
            mount = self._mount(item, f"{where}[{number}]") if isinstance(item, MapNode) else None
            if mount is None:
                continue
            target = posixpath.normpath(mount.container_path.text)
            if target in taken:
                message = f"two mounts of a container at {target!r}: one would hide the other"
                hint = "use another containerPath for one of them"
                first = taken[target]
                self.diagnostics.add(
                    ErrorCode.CONFLICT, mount.location, message, key_path=where, hint=hint, related_location=first
                )
            taken.setdefault(target, mount.location)
            yield mount

    def _mount(self, node: MapNode, where: str) -> MountSpec | None:
        # Mounts belong to devices, not to slices.
        values = replace(self.values, custom=self.values.custom - {SLICE})
        host_path = values.path(node.get("hostPath"), where)
        container_path = values.path(node.get("containerPath"), where)
        if host_path is None or container_path is None:
            return None
        # A template is checked when it is rendered.
        target = "" if container_path.names else container_path.render({})
        if target.startswith("/") and ".." not in target.split("/"):
            location = node.entries["containerPath"].value.location
            self._check_mount_target(target, location, where, len(container_path.text))
        read_only, optional = not is_set(node, "readOnly", value=False), is_set(node, "optional", value=True)
        source = node.entries["hostPath"].value
        self._check_mount(source, host_path, where, read_only=read_only)
        location = source.at(0) if isinstance(source, ScalarNode) else source.location
        return MountSpec(first_key_location(node), host_path, container_path, read_only, optional, location)

    def _check_mount_target(self, target: str, location: SourceLocation, where: str, width: int) -> None:
        if error := mount_target_error(target):
            code, hint = ErrorCode.PATH, "mount at another directory"
        elif self.policy is not None and (error := mount_target_error(target, self.policy)):
            code, hint = ErrorCode.NOT_ALLOWED, f"mount at another directory, or {self.policy.help}"
        else:
            return
        message = f"mounting at {target!r} {error}"
        self.diagnostics.add(code, location, message, key_path=where, hint=hint, width=width)

    def _check_mount(self, node: Node, host_path: Template, where: str, *, read_only: bool) -> None:
        # A template is checked when it is rendered, at Allocate.
        if self.policy is None or not isinstance(node, ScalarNode) or (host_path.names and self.policy.allows_mounts):
            return
        path = "/" if host_path.names else posixpath.normpath(host_path.render({}))
        if path.startswith("/") and (error := self.policy.mount_error(path, read_only=read_only)):
            message, width = f"the mount of {node.text!r} is {error}", len(node.text)
            self.diagnostics.add(
                ErrorCode.NOT_ALLOWED, node.at(0), message, key_path=where, hint=self.policy.help, width=width
            )


def _key_location(node: MapNode, key: str) -> SourceLocation | None:
    entry = node.entries.get(key)
    return entry.key if entry is not None else None
