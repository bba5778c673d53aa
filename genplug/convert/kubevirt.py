"""Converts the permitted host devices of KubeVirt, and those of a HyperConverged object.

The keys and their meaning are those of ``PermittedHostDevices`` in the API of github.com/kubevirt/kubevirt, and of
github.com/kubevirt/hyperconverged-cluster-operator.
"""

from genplug.config.yaml_tree import MapNode
from genplug.convert.conversion import Body, Draft, Report
from genplug.convert.section import Section
from genplug.convert.sources import Source, find, walk
from genplug.convert.texts import convert_id, convert_usb_id, escape_condition
from genplug.spec.diagnostic import ErrorCode

_KEY = "permittedHostDevices"
_PERMITTED = "set 'externalResourceProvider: true' in KubeVirt before genplug offers the resource"


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    for tree in (*source.trees, *source.objects):
        for part in walk(tree):
            devices = find(part, _KEY)
            if isinstance(devices, MapNode):
                _convert_devices(Section(devices, report, _KEY), report)


def _convert_devices(devices: Section, report: Report) -> None:
    drafts: dict[str, Draft] = {}
    for entry in devices.sections("pciHostDevices"):
        _convert_pci(entry, drafts)
    for entry in devices.sections("mediatedDevices"):
        _convert_mediated(entry, drafts)
    for key in ("usb", "usbHostDevices"):
        for entry in devices.sections(key):
            _convert_usb(entry, drafts)
    devices.finish()
    for draft in drafts.values():
        report.add(draft)


def _start(entry: Section, drafts: dict[str, Draft]) -> Draft | None:
    """Return the resource of an entry; None if the entry is disabled or has no name."""
    name = entry.required("resourceName")
    is_external = entry.flag("externalResourceProvider")
    if entry.flag("disabled"):
        entry.unsupported("disabled", f"the entry for {name} is disabled, and is left out", "remove the entry")
        return None
    if not name:
        return None
    draft = drafts.setdefault(name, Draft(name, entry.locate("resourceName")))
    if not is_external:
        entry.report.note(entry.location, "KubeVirt offers these resources itself", _PERMITTED)
    return draft


def _convert_pci(entry: Section, drafts: dict[str, Draft]) -> None:
    # HyperConverged has another name for the same key.
    key = "pciDeviceSelector" if entry.has("pciDeviceSelector") else "pciVendorSelector"
    selector = entry.required(key)
    entry.read["pciVendorSelector"] = None
    draft = _start(entry, drafts)
    vendor, colon, device = selector.partition(":")
    ids = convert_id(vendor.strip()), convert_id(device.strip())
    if selector and (not colon or None in ids):
        entry.error(key, f"expected VENDOR:DEVICE in hexadecimal, found {selector!r}", "for example 10de:1eb8")
    entry.finish(draft=draft)
    if draft is None:
        return
    draft.add_source(
        {
            "glob": "/sys/bus/pci/devices/*",
            "where": {"pci.vendor": ids[0], "pci.device": ids[1], "driver": "vfio-pci"},
            "groupBy": "${iommu.group}",
            "id": "${pci.address}",
            "nodes": ["/dev/vfio/${iommu.group}"],
            "with": ["/dev/vfio/vfio"],
        }
    )
    draft.allocate("env")["PCI_RESOURCE_${resource}"] = "${pci.address}"


def _convert_mediated(entry: Section, drafts: dict[str, Draft]) -> None:
    selector = entry.required("mdevNameSelector")
    draft = _start(entry, drafts)
    entry.finish(draft=draft)
    if draft is None:
        return
    source: Body = {
        "glob": "/sys/bus/mdev/devices/*",
        "attributes": {
            "mdevType": {"path": ["${path}/mdev_type/name", "${path}/mdev_type"]},
            "group": {"path": "${path}/iommu_group"},
        },
        # KubeVirt compares names with '_' for each space.
        "where": {"mdevType": escape_condition(selector).replace("_", "?").replace(" ", "?")},
        "id": "${name}",
        "nodes": ["/dev/vfio/${group}"],
        "with": ["/dev/vfio/vfio"],
    }
    draft.add_source(source)
    draft.allocate("env")["MDEV_PCI_RESOURCE_${resource}"] = "${name}"


def _convert_usb(entry: Section, drafts: dict[str, Draft]) -> None:
    selectors = entry.sections("selectors")
    draft = _start(entry, drafts)
    if not selectors:
        entry.error("selectors", "expected at least one USB device in 'selectors'", code=ErrorCode.MISSING_KEY)
    pairs = []
    for selector in selectors:
        texts = [selector.required(key) for key in ("vendor", "product")]
        ids = [convert_usb_id(text) for text in texts]
        for key, text, found in zip(("vendor", "product"), texts, ids, strict=True):
            if text and found is None:
                selector.error(key, f"expected a hexadecimal number with four digits, found {text!r}")
        selector.finish(draft=draft)
        pairs.append(ids)
    entry.finish(draft=draft)
    if draft is None or not pairs or None in (part for pair in pairs for part in pair):
        return
    source: Body = {
        "glob": "/dev/bus/usb/[0-9]*/[0-9]*",
        "attributes": {"address": {"value": "${attr.busnum}:${attr.devnum}"}},
    }
    if len(pairs) == 1:
        source["where"] = {"usb.vendor": pairs[0][0], "usb.product": pairs[0][1]}
        source["id"] = "${usb.port}"
    else:
        source["attributes"]["unit"] = {"value": "${usb.vendor}:${usb.product}"}
        source["where"] = {"unit": [f"{vendor}:{product}" for vendor, product in pairs]}
        source["groupBy"] = f"usb{len(draft.body['devices'])}"
    at = draft.add_source(source)
    if len(pairs) > 1:
        message = "all matching USB devices are one device; KubeVirt makes a unit of each complete set"
        action = "use conditions on 'usb.port' if a node has several sets"
        entry.unsupported("selectors", message, action, draft=draft, at=at)
    draft.allocate("env")["USB_RESOURCE_${resource}"] = "${address}"
