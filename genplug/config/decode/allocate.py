"""Decoding of ``allocate``: environment, mounts, annotations and CDI names, and what the policy says to them."""

import posixpath
from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from genplug.config.decode.values import ValueDecoder, entries, first_key_location, is_set, items
from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.yaml_tree import MapNode, Node, ScalarNode
from genplug.spec.location import SourceLocation
from genplug.spec.model import AllocateSpec, MountSpec
from genplug.spec.names import SLICE, annotation_key_error, cdi_device_error, env_name_error
from genplug.spec.policy import Policy
from genplug.spec.template import Template

_MAX_VARIABLE = 131_071
"""Bytes of ``NAME=value``; with a longer one the kernel starts no program (execve's MAX_ARG_STRLEN)."""
_MAX_ANSWER = 4 << 20
"""Bytes of an answer to Allocate that the kubelet takes (contract 1.5)."""


@frozen
class AllocateReader:
    """Reads an ``allocate``; without a policy nothing is refused as not allowed."""

    problems: Diagnostics
    texts: ValueDecoder
    policy: Policy | None

    def allocate(self, node: Node | None, where: str) -> AllocateSpec:
        """Return what a container gets."""
        if not isinstance(node, MapNode):
            return AllocateSpec()
        inject = node.get("inject")
        spec = AllocateSpec(
            env=self._named(node.get("env"), f"{where}.env", env_name_error),
            mounts=tuple(self._mounts(node.get("mounts"), f"{where}.mounts")),
            annotations=self._named(node.get("annotations"), f"{where}.annotations", annotation_key_error),
            cdi_devices=tuple(self._cdi_devices(node.get("cdiDevices"), f"{where}.cdiDevices")),
            injects_by_cdi=isinstance(inject, ScalarNode) and inject.value == "cdi",
        )
        self._check_sizes(spec, node, where)
        return spec

    def _check_sizes(self, spec: AllocateSpec, node: MapNode, where: str) -> None:
        locations = {name: entry.key for name, entry in entries(node.get("env"))}
        for name, template in spec.env:
            if len(f"{name}={template.text}".encode()) > _MAX_VARIABLE:
                message = f"{name!r} is longer than {_MAX_VARIABLE} bytes: no program could be started with it"
                tree, hint = f"{where}.env", "put it into a file, and mount that"
                self.problems.add(
                    ErrorCode.WRONG_VALUE, locations[name], message, key_path=tree, hint=hint, width=len(name)
                )
        paths = [template.text for mount in spec.mounts for template in (mount.host_path, mount.container_path)]
        named = [f"{name}{template.text}" for name, template in (*spec.env, *spec.annotations)]
        if len("".join((*paths, *named)).encode()) > _MAX_ANSWER:
            message = f"a container would be given more than the {_MAX_ANSWER >> 20} MiB that the kubelet takes"
            self.problems.add(
                ErrorCode.WRONG_VALUE, first_key_location(node), message, key_path=where, hint="put it into files"
            )

    def _named(self, node: Node | None, where: str, fault: Callable[[str], str]) -> tuple[tuple[str, Template], ...]:
        named = []
        for name, entry in entries(node):
            if said := fault(name):
                width = max(len(name), 1)
                self.problems.add(ErrorCode.NAME, entry.key, f"{name!r}: {said}", key_path=where, width=width)
            template = self.texts.template(entry.value, f"{where}.{name}")
            if template is not None:
                named.append((name, template))
        return tuple(named)

    def _cdi_devices(self, node: Node | None, where: str) -> Iterator[Template]:
        for item in items(node):
            template = self.texts.template(item, where)
            if template is None or not isinstance(item, ScalarNode):
                continue
            sample = template.render(dict.fromkeys(template.names, ("x",)))
            width = max(len(item.text), 1)
            if fault := cdi_device_error(sample):
                hint = "write the qualified name of a CDI device: vendor.example/class=device"
                message = f"{item.text!r}: {fault}"
                self.problems.add(ErrorCode.NAME, item.at(0), message, key_path=where, hint=hint, width=width)
            elif self.policy is not None and not template.names and (fault := self.policy.cdi_error(sample)):
                message = f"the CDI device {item.text!r} is {fault}"
                self.problems.add(
                    ErrorCode.NOT_ALLOWED, item.at(0), message, key_path=where, hint=self.policy.help, width=width
                )
            else:
                yield template

    def _mounts(self, node: Node | None, where: str) -> Iterator[MountSpec]:
        taken: dict[str, SourceLocation] = {}
        for number, item in enumerate(items(node)):
            mount = self._mount(item, f"{where}[{number}]") if isinstance(item, MapNode) else None
            if mount is None:
                continue
            target = posixpath.normpath(mount.container_path.text)
            if target in taken:
                message = f"two mounts of one container at {target!r}: the runtime would hide one under the other"
                hint = "give one another containerPath"
                first = taken[target]
                self.problems.add(
                    ErrorCode.CONFLICT, mount.location, message, key_path=where, hint=hint, related_location=first
                )
            taken.setdefault(target, mount.location)
            yield mount

    def _mount(self, node: MapNode, where: str) -> MountSpec | None:
        # Mounts are those of devices, whichever of their slices a container has.
        texts = evolve(self.texts, own=self.texts.own - {SLICE})
        host_path = texts.path(node.get("hostPath"), where)
        container_path = texts.path(node.get("containerPath"), where)
        if host_path is None or container_path is None:
            return None
        if not container_path.text.strip("/"):
            message, hint = "this would cover the container's whole file system", "name a directory in it"
            location = node.entries["containerPath"].value.location
            self.problems.add(ErrorCode.PATH, location, message, key_path=where, hint=hint)
        read_only, optional = not is_set(node, "readOnly", value=False), is_set(node, "optional", value=True)
        self._check_mount(node.entries["hostPath"].value, host_path, where, read_only=read_only)
        return MountSpec(first_key_location(node), host_path, container_path, read_only, optional)

    def _check_mount(self, node: Node, host_path: Template, where: str, *, read_only: bool) -> None:
        # What a template becomes is known, and asked about, when a container is to get it.
        if self.policy is None or not isinstance(node, ScalarNode) or (host_path.names and self.policy.allows_mounts):
            return
        path = "/" if host_path.names else posixpath.normpath(host_path.render({}))
        if path.startswith("/") and (fault := self.policy.mount_error(path, read_only=read_only)):
            message, width = f"the mount of {node.text!r} is {fault}", len(node.text)
            self.problems.add(
                ErrorCode.NOT_ALLOWED, node.at(0), message, key_path=where, hint=self.policy.help, width=width
            )
