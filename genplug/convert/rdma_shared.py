"""Converts configurations of k8s-rdma-shared-dev-plugin: its config.json, also inside an object of its operator.

The keys and their meaning are those of ``pkg/types/types.go`` and ``pkg/resources/resources_manager.go`` of
github.com/Mellanox/k8s-rdma-shared-dev-plugin.
"""

import re
from typing import Any

from genplug.config.yaml_tree import MapNode, ScalarNode
from genplug.convert.conversion import Draft, Report
from genplug.convert.section import Section
from genplug.convert.shares import set_tokens
from genplug.convert.sources import Source, find, parse_nested
from genplug.convert.texts import convert_id, escape_condition, one_or_list
from genplug.spec.diagnostic import ErrorCode

PREFIX = "rdma"
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_LINK_LAYERS = {"infiniband": "InfiniBand", "ether": "Ethernet"}
_IDS = {"vendors": "pci.vendor", "deviceIDs": "pci.device"}
_SELECTORS = (*_IDS, "drivers", "ifNames", "linkTypes")


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    trees = [tree for tree in source.trees if isinstance(tree, MapNode) and "configList" in tree.entries]
    for found in source.kinds("mellanox.com"):
        config = find(found, "spec", "rdmaSharedDevicePlugin", "config")
        nested = parse_nested(config, report.diagnostics) if isinstance(config, ScalarNode) else None
        if isinstance(nested, MapNode):
            trees.append(nested)
    for program in source.programs:
        for option in program.options(frozenset({"use-cdi", "version"})):
            if option.name == "use-cdi":
                message = "--use-cdi is not expressed"
                action = "write 'allocate: {inject: cdi}' to inject device nodes through CDI"
                report.note(option.location, message, action)
    for tree in trees:
        file = Section(tree, report)
        file.notes({"periodicUpdateInterval": "genplug follows the events of the kernel, and needs no interval"})
        entries = file.sections("configList")
        file.finish()
        drafts = [_convert_entry(entry) for entry in entries]
        if len(drafts) > 1:
            message = "an adapter can belong to several resources, as before: 'share.overlap' allows it"
            report.note(file.locate("configList"), message)
        for draft in drafts:
            if len(drafts) > 1:
                draft.body["share"] = {"overlap": True}
            report.add(draft)


def _convert_entry(entry: Section) -> Draft:
    name = entry.required("resourceName")
    prefix = entry.text("resourcePrefix") or PREFIX
    draft = Draft(f"{prefix}/{name}", entry.locate("resourceName"))
    if name and not _NAME.match(name):
        entry.error("resourceName", f"expected letters, digits and '_', found {name!r}")
    selectors = entry.section("selectors")
    devices = entry.texts("devices")
    is_empty = selectors is None or not any(selectors.has(key) for key in _SELECTORS)
    if is_empty and not devices:
        hint = "the plugin refuses an entry that selects nothing"
        entry.error("selectors", "expected 'selectors' or 'devices', found neither", hint, ErrorCode.MISSING_KEY)
    elif devices and not is_empty:
        entry.error("devices", "expected either 'selectors' or 'devices', found both", code=ErrorCode.CONFLICT)
    where: dict[str, Any] = {"pci.class": "0x02*"}
    attributes: dict[str, Any] = {}
    source: dict[str, Any] = {"glob": "/dev/infiniband/{uverbs,umad,issm}[0-9]*"}
    names = devices
    if selectors is not None:
        for key, attribute in _IDS.items():
            if ids := convert_ids(selectors, key):
                where[attribute] = one_or_list(ids)
        if drivers := selectors.texts("drivers"):
            where["driver"] = one_or_list([escape_condition(driver.text) for driver in drivers])
        names = names or selectors.texts("ifNames")
        link_types = selectors.texts("linkTypes")
        layers = [_LINK_LAYERS[link.text] for link in link_types if link.text in _LINK_LAYERS]
        if layers:
            where["ib.linkLayer"] = one_or_list(layers)
        if unknown := [link.text for link in link_types if link.text not in _LINK_LAYERS]:
            message = f"genplug knows the link layers of RDMA devices, and not {', '.join(unknown)}"
            selectors.unsupported("linkTypes", message, "write 'ib.linkLayer' by hand", draft=draft)
        selectors.finish(draft=draft)
    if names:
        attributes["port"] = {"path": "/sys/bus/pci/devices/${pci.address}/net/*", "all": True}
        where["port"] = one_or_list([escape_condition(name.text) for name in names])
    if attributes:
        source["attributes"] = attributes
    source |= {"where": where, "with": [{"path": "/dev/infiniband/rdma_cm", "optional": True}]}
    at = draft.add_source(source)
    message = "a process with 'umad' or 'issm' can manage the fabric; the plugin hands them out, and so does this glob"
    entry.report.note(entry.location, message, "write /dev/infiniband/uverbs[0-9]* if programs do not need them")
    _set_count(entry, draft)
    entry.finish(draft=draft, at=at)
    return draft


def _set_count(entry: Section, draft: Draft) -> None:
    count = entry.number("rdmaHcaMax", 0)
    if count < 0:
        entry.error("rdmaHcaMax", f"expected a number from 0, found {count}")
    if count == 0:
        message = "the plugin offers 0 devices; genplug needs at least 1 token"
        entry.unsupported(
            "rdmaHcaMax", message, "remove the resource, or write the number", draft=draft, at=("tokens",)
        )
    set_tokens(draft, count, entry, "rdmaHcaMax")


def convert_ids(section: Section, key: str) -> list[str]:
    """Return the vendor or device IDs in a list of a selector; record an error for each that is not an ID."""
    found = []
    for item in section.texts(key):
        converted = convert_id(item.text)
        if converted is None:
            section.error(key, f"expected hexadecimal IDs, found {item.text!r}")
        else:
            found.append(converted)
    return found
