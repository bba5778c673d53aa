"""Converts configurations of the SR-IOV network device plugin: its config.json, also inside a ConfigMap.

The keys and their meaning are those of ``pkg/types/types.go``, ``pkg/netdevice``, ``pkg/resources/deviceSelectors.go``
and ``pkg/infoprovider`` of github.com/k8snetworkplumbingwg/sriov-network-device-plugin.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from genplug.config.yaml_tree import MapNode, ScalarNode
from genplug.convert.conversion import Body, Draft, Path, Report
from genplug.convert.rdma_shared import convert_ids
from genplug.convert.section import Section
from genplug.convert.sources import Source, find, parse_nested
from genplug.convert.texts import escape_condition, escape_template, one_or_list
from genplug.spec.diagnostic import ErrorCode

PREFIX = "intel.com"
_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")
_CLASSES = {"netDevice": "0x02*", "accelerator": "0x12*"}
_DEVICE_TYPES = (*_CLASSES, "auxNetDevice")
_USER_DRIVERS = ["*vfio*", "*uio*", "*pci?stub", "*pf?stub", "*pciback"]
_SWITCHES = frozenset({"alsologtostderr", "logtostderr", "use-cdi"})
_LINK_TYPES = {"ether": "1", "infiniband": "32"}
"""The numbers of link types in ``/sys/class/net/*/type`` (``ARPHRD_*`` of the kernel)."""
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z")
_MAX_FUNCTIONS = 256
"""The maximum number of functions that are listed one by one; a longer list is a range."""
_DDP = "genplug cannot read the DDP profile of a card, which no file in /sys has"
_INFO_KEY = "PCIDEVICE_${resource}_INFO"


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    prefix = PREFIX
    for program in source.programs:
        for option in program.options(_SWITCHES):
            if option.name == "resource-prefix":
                prefix = option.text
            elif option.name == "use-cdi" and option.text != "false":
                action = "write 'allocate: {inject: cdi}' to inject device nodes through CDI"
                report.note(option.location, "--use-cdi is not expressed", action)
    trees = [tree for tree in source.trees if isinstance(tree, MapNode) and "resourceList" in tree.entries]
    for found in source.kinds("mellanox.com"):
        config = find(found, "spec", "sriovDevicePlugin", "config")
        nested = parse_nested(config, report.diagnostics) if isinstance(config, ScalarNode) else None
        if isinstance(nested, MapNode):
            trees.append(nested)
    for tree in trees:
        file = Section(tree, report)
        for entry in file.sections("resourceList"):
            _convert_entry(entry, prefix, report)
        file.finish()
    if report.drafts:
        location = report.drafts[0].location
        message = "the plugin leaves out the card with the default route of the node; genplug does not know it"
        report.note(location, message, "select the ports with 'port' or 'sriov.pf'")


def _convert_entry(entry: Section, prefix: str, report: Report) -> None:
    name = entry.required("resourceName")
    draft = Draft(f"{entry.text('resourcePrefix') or prefix}/{name}", entry.locate("resourceName"))
    if name and not _NAME.match(name):
        entry.error("resourceName", f"expected letters, digits, '_' and '.', found {name!r}")
    device_type = entry.text("deviceType") or "netDevice"
    if device_type not in _DEVICE_TYPES:
        hint = f"the plugin supports {', '.join(_DEVICE_TYPES)}"
        entry.error("deviceType", f"expected a device type, found {device_type!r}", hint)
    selectors = entry.sections("selectors", is_single_allowed=True)
    is_rdma = entry.flag("isRdma")
    if entry.flag("excludeTopology"):
        draft.body["topology"] = "none"
    if device_type == "auxNetDevice":
        entry.read |= dict.fromkeys(("additionalInfo",))
        message = f"the resource {draft.name} is left out: genplug has no attributes of auxiliary devices"
        action = "write a resource with 'glob: /sys/bus/auxiliary/devices/*' and conditions on 'name' by hand"
        entry.unsupported("deviceType", message, action)
        entry.finish()
        return
    if not selectors and not entry.has("selectors"):
        empty = MapNode(entry.location, {})
        selectors = [Section(empty, report, entry.key_path("selectors"))]
    draft.allocate("env")["PCIDEVICE_${resource}"] = "${pci.address}"
    for selector in selectors:
        _convert_selector(selector, device_type, draft, is_rdma=is_rdma)
    _add_information(entry, draft)
    entry.finish(draft=draft)
    if draft.body["devices"]:
        report.add(draft)


class _Functions(Struct, frozen=True):
    """A selection of functions: the conditions on their physical function and their number."""

    where: Body
    needs_port: bool = False


def _convert_selector(selector: Section, device_type: str, draft: Draft, *, is_rdma: bool) -> None:
    where, attributes = _read_conditions(selector, device_type, draft)
    is_rdma = selector.flag("isRdma") or is_rdma
    companions = ["/dev/vhost-net", "/dev/net/tun"] if selector.flag("needVhostNet") else []
    vdpa = selector.text("vdpaType")
    if vdpa and is_rdma:
        selector.error("vdpaType", "expected either 'vdpaType' or 'isRdma', found both", code=ErrorCode.CONFLICT)
    drivers = _read_drivers(selector)
    if vdpa and not selector.has("drivers"):
        drivers = drivers[1:]
    choices = list(_select_functions(selector))
    if selector.has("ddpProfiles"):
        selector.unsupported("ddpProfiles", _DDP, "select the ports by name instead", draft=draft)
    selector.read["ddpProfiles"] = None
    paths: list[Path] = []
    for functions in choices:
        for names in drivers:
            source: Body = {"glob": "/sys/bus/pci/devices/*"}
            own = dict(attributes)
            if functions.needs_port:
                # The interface of a virtual function moves into the pod; that of its physical function does not.
                own["port"] = {
                    "path": ["/sys/bus/pci/devices/${sriov.pf}/net/*", "/sys/bus/pci/devices/${pci.address}/net/*"],
                    "all": True,
                }
            conditions = where | names | functions.where
            if "sriov.vfIndex" not in functions.where and device_type == "netDevice":
                # The plugin leaves out physical functions that have virtual functions.
                own["functions"] = {"path": "/sys/bus/pci/devices/${pci.address}/virtfn*"}
                conditions["functions"] = {"exists": False}
            source |= {"attributes": own} if own else {}
            source |= {"where": conditions, "id": "${pci.address}", "verbatimId": True}
            _add_nodes(source, names, is_rdma=is_rdma, vdpa=vdpa, companions=companions)
            paths.append(draft.add_source(source))
    _remark_nodes(selector, draft, paths, is_rdma=is_rdma, vdpa=vdpa)
    selector.finish(draft=draft)


def _read_conditions(selector: Section, device_type: str, draft: Draft) -> tuple[Body, Body]:
    """Return the conditions of a selector that do not depend on a port or driver, and the attributes in them."""
    where: Body = {"pci.class": _CLASSES.get(device_type, "0x02*")}
    attributes: Body = {}
    for key, attribute in (("vendors", "pci.vendor"), ("devices", "pci.device")):
        if ids := convert_ids(selector, key):
            where[attribute] = one_or_list(ids)
    if addresses := selector.texts("pciAddresses"):
        where["pci.address"] = one_or_list([escape_condition(item.text.lower()) for item in addresses])
    if indexes := selector.texts("acpiIndexes"):
        attributes["acpiIndex"] = {"path": "/sys/bus/pci/devices/${pci.address}/acpi_index"}
        where["acpiIndex"] = one_or_list([escape_condition(item.text) for item in indexes])
    _add_link_types(selector, where, attributes, draft)
    if keys := selector.texts("pKeys"):
        attributes["pkey"] = {"path": "/sys/bus/pci/devices/${pci.address}/infiniband/*/ports/*/pkeys/0"}
        where["pkey"] = one_or_list([escape_condition(item.text) for item in keys])
    return where, attributes


def _read_drivers(selector: Section) -> list[Body]:
    """Return the conditions on the driver, separately for drivers with other device nodes."""
    names = [item.text for item in selector.texts("drivers")]
    if not names:
        return [{"driver": "*vfio?pci"}, {"driver": {"notIn": _USER_DRIVERS}}]
    if "mlx5_ib" in names:
        message = "the driver of the PCI function is mlx5_core; mlx5_ib is the driver of its RDMA device"
        selector.note("drivers", message)
        names = [name.replace("mlx5_ib", "mlx5_core") for name in names]
    kinds = [
        [name for name in names if "vfio" in name],
        [name for name in names if "uio" in name and "vfio" not in name],
        [name for name in names if "uio" not in name and "vfio" not in name],
    ]
    return [{"driver": one_or_list([escape_condition(name) for name in kind])} for kind in kinds if kind]


def _select_functions(selector: Section) -> Iterator[_Functions]:
    """Yield the conditions of ``pfNames`` and ``rootDevices``; several lists of numbers need several sources."""
    ports = [_read_functions(selector, "pfNames", item) for item in selector.texts("pfNames")]
    roots = [_read_functions(selector, "rootDevices", item) for item in selector.texts("rootDevices")]
    if ports and roots:
        message = "the plugin requires the port and the physical function; this configuration requires the port"
        selector.unsupported("rootDevices", message, "add 'sriov.pf' to the conditions")
    if not ports and not roots:
        yield _Functions({})
        return
    attribute, found = ("port", ports) if ports else ("sriov.pf", roots)
    whole = [name for name, numbers in found if numbers is None]
    if whole:
        yield _Functions({attribute: one_or_list(whole)}, needs_port=bool(ports))
    for name, numbers in found:
        if numbers is not None:
            yield _Functions({attribute: name, "sriov.vfIndex": numbers}, needs_port=bool(ports))


def _read_functions(selector: Section, key: str, item: ScalarNode) -> tuple[str, Any]:
    """Return the name in ``NAME#0,2-7``, and the condition on the number of the function, or None for all functions."""
    name, sharp, text = item.text.partition("#")
    name = escape_condition(name if key == "pfNames" else name.lower())
    if not sharp:
        return name, None
    ranges = [_RANGE.match(part) for part in text.split(",")]
    pairs = [(int(found[1]), int(found[2] or found[1])) for found in ranges if found]
    if len(pairs) != len(ranges) or any(first > last for first, last in pairs):
        hint = "write for example ens1f0#0,2-7"
        selector.error(key, f"expected numbers and ranges of functions after '#', found {item.text!r}", hint)
        return name, None
    if len(pairs) == 1:
        return name, {"min": pairs[0][0], "max": pairs[0][1]}
    numbers = {number for first, last in pairs for number in range(first, min(last, first + _MAX_FUNCTIONS) + 1)}
    return name, one_or_list([str(number) for number in sorted(numbers)[:_MAX_FUNCTIONS]])


def _add_link_types(selector: Section, where: Body, attributes: Body, draft: Draft) -> None:
    types = [item.text for item in selector.texts("linkTypes")]
    known = [_LINK_TYPES[name] for name in types if name in _LINK_TYPES]
    if known:
        attributes["linkType"] = {
            "path": ["/sys/bus/pci/devices/${sriov.pf}/net/*/type", "/sys/bus/pci/devices/${pci.address}/net/*/type"]
        }
        where["linkType"] = one_or_list(known)
    if unknown := [name for name in types if name not in _LINK_TYPES]:
        message = f"genplug has no number for the link type {', '.join(unknown)}"
        action = "write the number in /sys/class/net/INTERFACE/type as the condition 'linkType'"
        selector.unsupported("linkTypes", message, action, draft=draft)


def _add_nodes(source: Body, names: Body, *, is_rdma: bool, vdpa: str, companions: Sequence[str]) -> None:
    """Add the device nodes of functions with a driver."""
    driver = names["driver"]
    text = "" if isinstance(driver, dict) else str(driver)
    shared: list[Any] = list(companions)
    if "vfio" in text:
        source["nodes"] = [
            {"path": "/dev/vfio/${iommu.group}", "optional": True},
            {"path": "/dev/vfio/noiommu-${iommu.group}", "as": "/dev/vfio/${iommu.group}", "optional": True},
        ]
        shared.insert(0, "/dev/vfio/vfio")
    elif "uio" in text:
        source.setdefault("attributes", {})["uio"] = {"path": "/sys/bus/pci/devices/${pci.address}/uio/*"}
        source["nodes"] = ["/dev/${uio}"]
    elif vdpa == "vhost":
        source.setdefault("attributes", {})["vdpa"] = {"path": "/sys/bus/pci/devices/${pci.address}/vdpa*/vhost-vdpa-*"}
        source["where"]["vdpa"] = {"exists": True}
        source["nodes"] = ["/dev/${vdpa}"]
    elif vdpa:
        source.setdefault("attributes", {})["vdpa"] = {"path": "/sys/bus/pci/devices/${pci.address}/vdpa*/virtio*"}
        source["where"]["vdpa"] = {"exists": True}
    elif is_rdma:
        source.setdefault("attributes", {})["verbs"] = {
            "path": "/sys/bus/pci/devices/${pci.address}/infiniband_verbs/*"
        }
        source["where"]["verbs"] = {"exists": True}
        source["nodes"] = ["/dev/infiniband/${verbs}"]
        shared.insert(0, {"path": "/dev/infiniband/rdma_cm", "optional": True})
    if shared:
        source["with"] = shared


def _remark_nodes(selector: Section, draft: Draft, paths: Sequence[Path], *, is_rdma: bool, vdpa: str) -> None:
    if not paths:
        return
    if any("vfio" in str(draft.body["devices"][path[1]]["where"]["driver"]) for path in paths):
        message = "a VFIO group can be opened as a whole only: genplug offers the first of several functions in a group"
        selector.report.note(selector.location, message, "'genplug init sriov-vfio' offers such functions as a device")
    if is_rdma and selector.has("isRdma"):
        message = "the plugin also hands out 'umad' and 'issm', with which a process can manage the fabric"
        action = "add an attribute for infiniband_mad/* and a node, if programs need them"
        selector.note("isRdma", message, action, draft=draft, at=paths[0])
    if vdpa not in ("", "vhost", "virtio"):
        selector.error("vdpaType", f"expected 'vhost' or 'virtio', found {vdpa!r}")
    elif vdpa:
        message = "check the path of the vDPA device below the PCI function"
        action = "the recipe 'genplug init vdpa' selects vDPA devices by their own directory"
        selector.note("vdpaType", message, action, draft=draft, at=paths[0])


def _add_information(entry: Section, draft: Draft) -> None:
    """Add ``additionalInfo`` for all devices to the variable with information, as the plugin forms it."""
    information = entry.section("additionalInfo")
    if information is None:
        return
    general: dict[str, str] = {}
    for address in information.tree.entries:
        values = information.section(address)
        if values is None:
            continue
        if address == "*":
            general = {key: values.text(key) for key in values.tree.entries}
        else:
            message = "genplug sets the same information for all devices of a resource"
            action = "make a resource with the condition 'pci.address' for this device"
            information.unsupported(address, message, action, draft=draft, at=("allocate",))
    if not general:
        return
    extra = escape_template(json.dumps(general, ensure_ascii=False))
    draft.allocate("env")[_INFO_KEY] = {
        "each": f'${{pci.address|quote}}:{{"extraInfo":{extra},"generic":{{"deviceID":${{pci.address|quote}}}}}}',
        "prefix": "{",
        "suffix": "}",
    }
