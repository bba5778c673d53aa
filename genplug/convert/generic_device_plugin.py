"""Converts configurations of generic-device-plugin: its configuration file, and ``--device`` of a workload.

The keys and their meaning are those of ``config.go``, ``deviceplugin/path.go`` and ``deviceplugin/usb.go`` of
github.com/squat/generic-device-plugin at 0.2.0.
"""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from genplug.config.yaml_tree import ListNode, MapNode, ScalarNode
from genplug.convert.conversion import Body, Draft, Path, Report
from genplug.convert.section import Section, sections_of
from genplug.convert.shares import allow_overlaps, set_replicas, set_tokens
from genplug.convert.sources import Option, Program, Source, parse_nested
from genplug.convert.texts import (
    convert_go_glob,
    convert_usb_id,
    escape_template,
    has_wildcard,
    is_known_directory,
    one_or_list,
)
from genplug.spec.diagnostic import ErrorCode

DOMAIN = "squat.ai"
_NAME = re.compile(r"[a-z0-9][-a-z0-9]*[a-z0-9]\Z")
_ONE_STAR = re.compile(r"[^*?\[]*\*[^*?\[]*\Z")
_SWITCHES = frozenset({"version"})
_PROCESS = {
    "config": "genplug reads its configuration from --config",
    "listen": "genplug has --listen, which the chart sets with 'metrics'",
    "log-level": "genplug has --log-level, which the chart sets with 'daemonset.logLevel'",
    "plugin-directory": "genplug has --device-plugins-dir, with the same default",
    "version": "genplug has --version",
}
_VARIABLES = {name.upper().replace("-", "_"): text for name, text in _PROCESS.items()}
_GROUP_ACTION = "write a resource for it by hand, with 'groupBy' or 'nodes'"


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    domain, devices = DOMAIN, []
    for program in source.programs:
        found, sections = _read_program(program, report)
        domain = found or domain
        devices += sections
    for tree in source.trees:
        if isinstance(tree, ListNode):
            devices += sections_of(tree, report, "")
        elif isinstance(tree, MapNode) and "groups" in tree.entries:
            devices.append(Section(tree, report))
        elif isinstance(tree, MapNode) and not {"devices", "device"}.isdisjoint(tree.entries):
            file = Section(tree, report)
            domain = file.text("domain", domain)
            devices += file.sections("devices") + file.sections("device")
            file.notes(_PROCESS)
            file.finish()
    for device in devices:
        _convert_device(device, domain, report)
    allow_overlaps(report)


def _read_program(program: Program, report: Report) -> tuple[str, list[Section]]:
    """Return the domain in the options and variables of a container, or an empty text, and its devices."""
    domain, devices = "", []
    for name, value in program.environment:
        if name.text == "DOMAIN":
            domain = value.text
        elif name.text in _VARIABLES:
            report.note(name.location, f"the environment variable {name.text} is not needed: {_VARIABLES[name.text]}")
    for option in program.options(_SWITCHES):
        if option.name == "domain":
            domain = option.text
        elif option.name == "device":
            devices += _read_option(option, report)
        elif option.name in _PROCESS:
            report.note(option.location, f"--{option.name} is not needed: {_PROCESS[option.name]}")
    return domain, devices


def _read_option(option: Option, report: Report) -> list[Section]:
    if option.value is None:
        return []
    tree = parse_nested(option.value, report.diagnostics)
    if isinstance(tree, MapNode):
        return [Section(tree, report, "--device")]
    if tree is not None:
        report.diagnostics.add(
            ErrorCode.WRONG_TYPE,
            option.value.location,
            "expected a mapping with 'name' and 'groups' as the value of --device",
            hint="versions before 2022 read NAME,PATH,PATH: write {name: NAME, groups: [{paths: [{path: PATH}]}]}",
        )
    return []


class _Path(Struct, frozen=True):
    """An entry of ``paths``: the glob in the form of genplug, and the other keys."""

    section: Section
    glob: str
    mount_path: str
    permissions: str
    is_mount: bool
    is_read_only: bool
    is_optional: bool
    limit: int

    @property
    def is_pattern(self) -> bool:
        return has_wildcard(self.glob)

    def node(self, path: str, name: str) -> Body:
        """Return the entry of ``nodes`` for a template of the path, and for one of its last part."""
        node: Body = {"path": path}
        if self.mount_path:
            node["as"] = self.container_path(name)
        if self.permissions:
            node["permissions"] = self.permissions
        if self.is_optional:
            node["optional"] = True
        return node

    def container_path(self, name: str) -> str:
        """Return the path in the container; a path that ends with a slash is a directory."""
        path = escape_template(self.mount_path)
        return f"{path}{name}" if path.endswith("/") else path


def _convert_device(device: Section, domain: str, report: Report) -> None:
    name = device.required("name")
    draft = Draft(f"{domain}/{name}", device.locate("name"))
    if name and not _NAME.match(name):
        hint = "the name has at least two lower-case letters, digits or '-'"
        device.error("name", f"expected a name of generic-device-plugin, found {name!r}", hint)
    groups = device.sections("groups")
    counts: list[int] = []
    for group in groups:
        _convert_group(group, draft, counts, is_only=len(groups) == 1)
    device.finish(draft=draft)
    if not draft.body["devices"]:
        message = f"the resource {draft.name} is left out: none of its groups can be converted"
        device.unsupported("groups", message, _GROUP_ACTION)
        return
    _set_count(device, draft, counts, groups)
    report.add(draft)


def _set_count(device: Section, draft: Draft, counts: Sequence[int], groups: Sequence[Section]) -> None:
    """Write the counts of the groups as ``tokens`` or ``replicas`` of the resource."""
    if len(set(counts)) > 1:
        message = f"the groups have different counts ({', '.join(map(str, counts))}); 'replicas' applies to a resource"
        action = f"each device is offered {min(counts)} times; move a group to a resource of its own for another number"
        device.unsupported("groups", message, action, draft=draft)
    count = min(counts)
    if count <= 1:
        return
    is_single = len(groups) == 1 and not has_wildcard(str(draft.body["devices"][0]["glob"]))
    (set_tokens if is_single else set_replicas)(draft, count, device, "groups")


def _convert_group(group: Section, draft: Draft, counts: list[int], *, is_only: bool) -> None:
    paths = [found for item in group.sections("paths") if (found := _read_path(item, draft)) is not None]
    usb = group.sections("usb")
    count = max(group.number("count", 1), 1)
    group.finish(draft=draft)
    if paths and usb:
        group.error("usb", "expected either 'paths' or 'usb' in a group, found both", code=ErrorCode.CONFLICT)
    converted = _convert_usb(group, usb, draft) if usb else _convert_paths(group, paths, draft, is_only=is_only)
    if converted:
        counts.append(count)


def _read_path(item: Section, draft: Draft) -> _Path | None:
    path = item.required("path")
    kind = item.text("type", "Device") or "Device"
    permissions = item.text("permissions")
    found = _Path(
        item,
        convert_go_glob(path),
        item.text("mountPath").strip(),
        permissions,
        kind == "Mount",
        item.flag("readOnly"),
        item.flag("optional"),
        max(item.number("limit", 1), 1),
    )
    item.finish(draft=draft)
    if kind not in ("Device", "Mount"):
        action = "write Device or Mount"
        item.unsupported("type", f"generic-device-plugin offers a unit without a device for type {kind!r}", action)
        return None
    if not path:
        return None
    if not permissions and not found.is_mount:
        message = "generic-device-plugin gives 'mrw' where 'permissions' is missing; genplug gives 'rw'"
        item.report.note(item.location, message, "write 'permissions: mrw' for programs that create device nodes")
    return found


def _convert_paths(group: Section, paths: Sequence[_Path], draft: Draft, *, is_only: bool) -> bool:
    """Add the source for a group of paths; return whether there is one."""
    if not paths:
        return False
    if all(path.is_optional and not path.is_pattern and not path.mount_path for path in paths) and len(paths) > 1:
        _add_optional(paths, draft)
        return True
    anchor = _choose_anchor(paths)
    others = [path for path in paths if path is not anchor]
    if is_known_directory(anchor.glob) and not others and not anchor.is_mount:
        _add_directory(anchor, draft)
        return True
    source: Body = {"glob": anchor.glob}
    part = _set_part(source, anchor, others)
    nodes: list[Body] = [] if anchor.is_mount else [anchor.node("${path}", "${name}")]
    companions: list[Body] = []
    for other in others:
        template = _template_of(other, part)
        if template is None:
            message = "genplug does not pair paths by their position in two sorted lists, and this group is left out"
            other.section.unsupported("path", message, _GROUP_ACTION, draft=draft)
            return False
        if other.is_mount:
            continue
        node = other.node(template, template.rpartition("/")[2])
        is_companion = anchor.is_pattern and not other.is_pattern
        (companions if is_companion else nodes).append(node)
    if anchor.is_mount:
        source["type"] = "any"
    elif nodes != [{"path": "${path}"}]:
        source["nodes"] = [node["path"] if len(node) == 1 else node for node in nodes]
    if companions:
        source["with"] = [node["path"] if len(node) == 1 else node for node in companions]
    at = draft.add_source(source)
    _remark_pairs(anchor, others, draft, at)
    _add_mounts(group, paths, part, draft, at, is_only=is_only)
    return True


def _add_optional(paths: Sequence[_Path], draft: Draft) -> None:
    """Add a source for a device that consists of those of its nodes that exist."""
    source: Body = {"glob": [path.glob for path in paths], "groupBy": f"group{len(draft.body['devices'])}"}
    if permissions := next((path.permissions for path in paths if path.permissions), ""):
        source["nodes"] = [{"path": "${path}", "permissions": permissions}]
    draft.add_source(source)


def _choose_anchor(paths: Sequence[_Path]) -> _Path:
    """Return the path that decides how many devices a group has: a required pattern, else the first required path."""
    required = [path for path in paths if not path.is_optional] or list(paths)
    nodes = [path for path in required if not path.is_mount] or required
    return next((path for path in nodes if path.is_pattern), nodes[0])


def _add_directory(path: _Path, draft: Draft) -> None:
    directory = path.glob.rstrip("/")
    node: Body = {"path": f"{directory}/*", "optional": True}
    if path.permissions:
        node["permissions"] = path.permissions
    at = draft.add_source({"glob": directory, "type": "directory", "nodes": [node]})
    message = "the path is a directory; a container receives the device nodes that exist in it when it starts"
    path.section.note("path", message, draft=draft, at=at)
    if path.mount_path:
        message = "genplug does not hand out a directory under another path"
        path.section.unsupported("mountPath", message, "list the device nodes one by one", draft=draft, at=at)


def _set_part(source: Body, anchor: _Path, others: Sequence[_Path]) -> str:
    """Return a reference to the part of the name that the ``*`` of a pattern matches, or an empty text."""
    if not any(other.is_pattern for other in others) or not _ONE_STAR.match(anchor.glob):
        return ""
    before, _, after = anchor.glob.rpartition("/")[2].partition("*")
    if not after:
        return "${index}"
    find = f"^{re.escape(before)}(.*){re.escape(after)}$"
    source["attributes"] = {"part": {"value": "${name}", "find": escape_template(find)}}
    return "${part}"


def _template_of(path: _Path, part: str) -> str | None:
    """Return a path as a template; the ``*`` of a pattern becomes a reference. None if that is not possible."""
    if not path.is_pattern:
        return escape_template(path.glob)
    return escape_template(path.glob).replace("*", part) if part and _ONE_STAR.match(path.glob) else None


def _remark_pairs(anchor: _Path, others: Sequence[_Path], draft: Draft, at: Path) -> None:
    for other in others:
        if other.is_pattern:
            message = "genplug pairs nodes whose names have the same number; generic-device-plugin pairs by position"
            other.section.note("path", message, "check the pairs with 'genplug plan'", draft=draft, at=at)
        elif anchor.is_pattern and not other.is_mount:
            message = f"generic-device-plugin uses this node for at most {other.limit} devices; genplug adds it to each"
            key = "limit" if other.section.has("limit") else "path"
            other.section.note(key, message, draft=draft, at=at)
    if anchor.section.has("limit"):
        anchor.section.note("limit", "the number has no effect for the path that has the most matches", draft=draft)


def _add_mounts(  # noqa: PLR0913 - the parts of a group
    group: Section, paths: Sequence[_Path], part: str, draft: Draft, at: Path, *, is_only: bool
) -> None:
    for path in paths:
        if not path.is_mount:
            continue
        is_anchor = len(paths) == 1 or path is _choose_anchor(paths)
        template = "${path}" if is_anchor else _template_of(path, part)
        mount: dict[str, Any] = {
            "hostPath": template,
            "containerPath": path.container_path("${name}") if path.mount_path else template,
            "readOnly": path.is_read_only,
        }
        if path.is_optional:
            mount["optional"] = True
        draft.allocate("mounts").append(mount)
        group.report.allow("mounts", "allow", path.glob)
        if not path.is_read_only:
            group.report.allow("mounts", "writable", path.glob)
        if not is_only:
            message = "a mount applies to all groups of the resource"
            path.section.unsupported("type", message, "move this group to a resource of its own", draft=draft, at=at)


def _convert_usb(group: Section, specs: Sequence[Section], draft: Draft) -> bool:
    """Add the source for a group of USB devices; return whether there is one."""
    found: list[tuple[str, str, str]] = []
    for spec in specs:
        vendor, product = (_read_usb_id(spec, key, draft) for key in ("vendor", "product"))
        serial = spec.text("serial")
        spec.finish(draft=draft)
        if vendor is not None and product is not None:
            found.append((vendor, product, serial))
    if not found:
        return False
    source: Body = {"glob": "/dev/bus/usb/[0-9]*/[0-9]*"}
    if len(found) == 1:
        ((vendor, product, serial),) = found
        source["where"] = {"usb.vendor": vendor, "usb.product": product}
        if serial:
            source["where"]["usb.serial"] = serial
        source["id"] = "${usb.serial|or:usb.port}" if serial else "${usb.port}"
        message = "each matching USB device is a device; generic-device-plugin joins all of them into one"
    else:
        text = "${usb.vendor}:${usb.product}:${usb.serial|default:}"
        source["attributes"] = {"unit": {"value": text}}
        source["where"] = {"unit": one_or_list([f"{spec[0]}:{spec[1]}:{spec[2] or '*'}" for spec in found])}
        source["groupBy"] = f"usb{len(draft.body['devices'])}"
        message = "all matching USB devices are one device, also while some of them are missing"
    at = draft.add_source(source)
    group.note("usb", message, "select the tty, hidraw or video node of the device instead, if a program needs it",
               draft=draft, at=at)  # fmt: skip
    return True


def _read_usb_id(spec: Section, key: str, draft: Draft) -> str | None:
    found = spec.scalar(key)
    if found is None:
        spec.error(key, f"expected a hexadecimal number for '{key}'", code=ErrorCode.MISSING_KEY)
        return None
    converted = convert_usb_id(found.text)
    if converted is None:
        spec.error(key, f"expected a hexadecimal number with four digits, found {found.text!r}")
    if isinstance(found, ScalarNode) and isinstance(found.value, int | float) and not isinstance(found.value, bool):
        message = (
            f"{found.text} is not quoted: generic-device-plugin reads it as a decimal number in a file, and as a "
            "hexadecimal number in --device; this configuration has the hexadecimal number"
        )
        spec.note(key, message, draft=draft)
    return converted
