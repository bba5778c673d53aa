"""Converts Configurations of Akri with the udev discovery handler.

The keys and their meaning are those of ``shared/src/akri/configuration.rs`` and ``discovery-handlers/udev`` of
github.com/project-akri/akri.
"""

import re
from typing import Any

from genplug.config.yaml_tree import MapNode, ScalarNode
from genplug.convert.conversion import Body, Draft, Report
from genplug.convert.section import Section
from genplug.convert.shares import allow_overlaps, set_replicas
from genplug.convert.sources import Source, find, parse_nested, text_of
from genplug.convert.texts import escape_template
from genplug.convert.udev_rules import Filter, RuleSyntaxError, convert_filters, parse_rule
from genplug.spec.diagnostic import ErrorCode

GROUP = "akri.sh"
_PERMISSIONS = ("r", "w", "m", "rw", "rm", "rwm", "wm")
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_SERVICE = ("Akri creates the service; genplug does not", "keep the service as an object of its own")
_HANDLERS = "genplug finds devices of the node; devices on the network stay with Akri"


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    for found in source.kinds(GROUP):
        if text_of(found.get("kind")) == "Configuration":
            name = text_of(find(found, "metadata", "name"))
            spec = found.get("spec")
            if isinstance(spec, MapNode):
                _convert_spec(Section(spec, report, "spec"), name or "unnamed", report)
    allow_overlaps(report)
    if report.drafts:
        message = "an ID follows from the name of a device in /sys, which can change when it is plugged in again"
        report.note(report.drafts[0].location, message, "write 'id' with a serial number or a port, see GP109")


def _convert_spec(spec: Section, name: str, report: Report) -> None:
    draft = Draft(f"{GROUP}/{_NAME.sub('-', name)}", spec.location)
    handler = spec.section("discoveryHandler")
    if handler is None:
        spec.error("discoveryHandler", "expected a discovery handler, found none", code=ErrorCode.MISSING_KEY)
        return
    kind = handler.required("name")
    set_replicas(draft, spec.number("capacity", 1), spec, "capacity")
    _convert_broker(spec, draft)
    spec.finish(draft=draft)
    details = handler.scalar("discoveryDetails")
    if kind and kind != "udev":
        message = f"the resource {draft.name} is left out: it belongs to the discovery handler {kind}"
        handler.unsupported("name", message, _HANDLERS)
        return
    if handler.has("discoveryProperties"):
        message = "genplug has no discovery properties"
        action = "for virtual machines, write 'PCI_RESOURCE_${resource}' under 'allocate.env'"
        handler.unsupported("discoveryProperties", message, action, draft=draft)
    handler.read["discoveryProperties"] = None
    handler.finish(draft=draft)
    tree = parse_nested(details, report.diagnostics) if isinstance(details, ScalarNode) and details.text else None
    if not isinstance(tree, MapNode):
        message = "expected a mapping with 'udevRules' in the text of 'discoveryDetails'"
        handler.error("discoveryDetails", message, code=ErrorCode.MISSING_KEY)
        return
    _convert_details(Section(tree, report, f"{handler.path}.discoveryDetails"), draft)
    if draft.body["devices"]:
        report.add(draft)


def _convert_broker(spec: Section, draft: Draft) -> None:
    broker = spec.section("brokerSpec")
    if broker is not None:
        message = "genplug starts no pods"
        action = f"write a Deployment or a DaemonSet whose container requests {draft.name}"
        spec.unsupported("brokerSpec", message, action, draft=draft)
    spec.unsupported_keys({"instanceServiceSpec": _SERVICE, "configurationServiceSpec": _SERVICE}, draft=draft)
    env = draft.allocate("env")
    env["UDEV_DEVNODE"] = "/dev/${devname}"
    env["UDEV_DEVPATH"] = "${devpath}"
    properties = spec.section("brokerProperties")
    for key in properties.tree.entries if properties is not None else ():
        env[key] = escape_template(properties.text(key)) if properties is not None else ""


def _convert_details(details: Section, draft: Draft) -> None:
    rules = details.texts("udevRules")
    if not rules:
        details.error("udevRules", "expected at least one rule", code=ErrorCode.MISSING_KEY)
    permissions = details.text("permissions", "rwm") or "rwm"
    if permissions not in _PERMISSIONS:
        hint = f"Akri knows {', '.join(_PERMISSIONS)}"
        details.error("permissions", f"expected permissions, found {permissions!r}", hint)
    for rule in rules:
        try:
            filters = parse_rule(rule.text)
        except RuleSyntaxError as error:
            details.report.diagnostics.add(
                ErrorCode.WRONG_VALUE, rule.at(error.offset), str(error), key_path=details.key_path("udevRules"),
                hint=error.hint,
            )  # fmt: skip
            continue
        _add_rule(details, filters, draft, permissions)
    if details.flag("groupRecursive"):
        message = "genplug does not join a device with its relatives in the tree of udev"
        action = "write 'groupBy: ${usb.port}' to join the nodes of a USB device"
        details.unsupported("groupRecursive", message, action, draft=draft)
    details.finish(draft=draft)


def _add_rule(details: Section, filters: list[Filter], draft: Draft, permissions: str) -> None:
    found = convert_filters(filters)
    attributes: dict[str, Any] = {
        "devname": {"path": "${sysfs}/uevent", "find": "(?m)^DEVNAME=(.*)$"},
        "devpath": {"value": "${sysfs}", "find": "^/sys(.*)$"},
    }
    source: Body = {"glob": found.globs[0] if len(found.globs) == 1 else list(found.globs)}
    node: Any = "/dev/${devname}"
    if permissions != "rw":
        node = {"path": node, "permissions": permissions}
    source |= {
        "attributes": attributes | found.attributes,
        # A device without a device node gives a container nothing.
        "where": {**found.where, "devname": {"exists": True}},
        "nodes": [node],
    }
    at = draft.add_source(source)
    for message, action in found.problems:
        details.unsupported("udevRules", message, action, draft=draft, at=at)
