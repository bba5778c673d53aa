"""Converts arguments of Intel's device plugins and the custom resources of their operator.

The options are those of ``cmd/*_plugin`` and the keys those of ``pkg/apis/deviceplugin/v1`` of
github.com/intel/intel-device-plugins-for-kubernetes. The devices and their health probes are those of the recipes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode
from genplug.convert.conversion import Draft, Report
from genplug.convert.recipe_bodies import read_recipe
from genplug.convert.section import Section
from genplug.convert.shares import set_replicas, set_tokens
from genplug.convert.sources import Option, Program, Source, text_of
from genplug.convert.texts import convert_id

GROUP = "deviceplugin.intel.com"
KINDS = ("gpu", "qat", "sgx", "dsa", "iaa", "npu", "fpga", "dlb")
_PLUGIN = re.compile(rf"(?:\A|[/_-])({'|'.join(KINDS)})[_-]plugin\b")
_KIND = re.compile(rf"({'|'.join(KINDS)})DevicePlugin\Z", re.IGNORECASE)
_DEFAULT_LIMIT = 110

_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "gpu": {
        "shared-dev-num": "sharedDevNum",
        "allow-ids": "allowIDs",
        "deny-ids": "denyIDs",
        "allocation-policy": "preferredAllocationPolicy",
        "bypath": "bypathMode",
        "enable-monitoring": "enableMonitoring",
        "monitoring-mode": "monitoringMode",
    },
    "qat": {
        "dpdk-driver": "dpdkDriver",
        "kernel-vf-drivers": "kernelVfDrivers",
        "allocation-policy": "preferredAllocationPolicy",
        "max-num-devices": "maxNumDevices",
    },
    "sgx": {
        "enclave-limit": "enclaveLimit",
        "provision-limit": "provisionLimit",
        "dcap-infra-resources": "dcapInfraResources",
    },
    "dsa": {"shared-dev-num": "sharedDevNum", "driver": "driver"},
    "iaa": {"shared-dev-num": "sharedDevNum"},
    "npu": {"shared-dev-num": "sharedDevNum"},
    "fpga": {"mode": "mode"},
    "dlb": {},
}
"""The key of the custom resource by the option of a plugin."""
_SWITCHES = frozenset(
    {"enable-monitoring", "health-management", "wsl", "dcap-infra-resources", "logtostderr", "alsologtostderr"}
)
_HEALTH = ("genplug does not use Level Zero or xpumd", "the probes of the recipe check the card; use 'http' for xpumd")
_LIMIT = ("genplug does not read the limits of the plugin", "write a 'file' probe of the sensors in hwmon")
_PROGRAM_KEYS: Mapping[str, tuple[str, str]] = {
    "health-management": _HEALTH,
    "xpumd-endpoint": _HEALTH,
    "temp-limit": _LIMIT,
    "gpu-temp-limit": _LIMIT,
    "memory-temp-limit": _LIMIT,
    "wsl": ("genplug does not support WSL", "keep Intel's plugin there"),
    "prefix": ("genplug has --root for another root directory", "pass it to 'genplug run'"),
}
_IGNORED_OPTIONS = frozenset(
    {"v", "vmodule", "logtostderr", "alsologtostderr", "stderrthreshold", "log_dir", "log_file", "node-name", "master"}
    | {"kubeconfig", "add_dir_header", "skip_headers", "skip_log_headers", "log_backtrace_at", "log_file_max_size"}
)
_COMMON = {
    "image": "the image of the plugin is not needed",
    "initImage": "the image of the init container is not needed",
    "logLevel": "genplug has 'daemonset.logLevel' of its chart",
}
_CHART = {
    "nodeSelector": ("nodes are selected in the chart", "write 'daemonset.nodeSelector' or 'pools' of genplug's chart"),
    "tolerations": ("tolerations are set in the chart", "write 'daemonset.tolerations' of genplug's chart"),
}
_POLICIES = {"balanced": "spread", "packed": "packed", "none": "none"}
_QAT_DRIVERS = {
    "dh895xccvf": ["0x0443"],
    "c4xxxvf": ["0x18a1"],
    "c3xxxvf": ["0x19e3"],
    "4xxxvf": ["0x4941", "0x4943", "0x4945"],
    "420xxvf": ["0x4947"],
    "6xxxvf": ["0x4949"],
    "c6xxvf": ["0x37c9"],
    "d15xxvf": ["0x6f55"],
}
"""The device IDs of virtual functions by their driver in the kernel (``qatDeviceDriver`` of dpdkdrv.go)."""
_PROVISIONING = ("genplug does not configure the hardware", "keep the init container, or configure the nodes before")


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    for found in source.kinds(GROUP):
        kind = _KIND.match(text_of(found.get("kind")))
        spec = found.get("spec")
        if kind is not None and isinstance(spec, MapNode):
            _convert_plugin(kind[1].lower(), Section(spec, report, "spec"), report)
    for program in source.programs:
        kind = _PLUGIN.search(program.image) or _PLUGIN.search(program.name)
        if kind is not None:
            _convert_plugin(kind[1], _read_program(program, kind[1], report), report)


def is_plugin(program: Program) -> bool:
    """Return whether a container is one of Intel's device plugins."""
    return bool(_PLUGIN.search(program.image) or _PLUGIN.search(program.name))


def _read_program(program: Program, kind: str, report: Report) -> Section:
    """Return the options of a container as the specification of a custom resource."""
    entries: dict[str, MapEntry] = {}
    for option in program.options(_SWITCHES):
        if option.name in _IGNORED_OPTIONS:
            continue
        key = _OPTIONS[kind].get(option.name, option.name)
        entries[key] = MapEntry(option.location, _value(option, key))
    return Section(MapNode(program.location, entries), report)


def _value(option: Option, key: str) -> Node:
    scalar = option.value or ScalarNode(option.location, option.text, option.text, None)
    if key != "kernelVfDrivers":
        return scalar
    words = [word.strip() for word in scalar.text.split(",")]
    return ListNode(scalar.location, tuple(ScalarNode(scalar.location, word, word, None) for word in words))


def _convert_plugin(kind: str, spec: Section, report: Report) -> None:
    spec.notes(_COMMON)
    spec.read |= dict.fromkeys(_OPTIONS[kind].values())
    for key, (message, action) in _CHART.items():
        if spec.has(key):
            spec.note(key, message, action)
        spec.read[key] = None
    for draft in _CONVERTERS[kind](spec):
        report.add(draft)
    if kind == "gpu":
        spec.unsupported_keys({key: text for key, text in _PROGRAM_KEYS.items() if spec.has(key)})
    if spec.has("prefix"):
        spec.unsupported_keys({"prefix": _PROGRAM_KEYS["prefix"]})
    spec.finish()


def _drafts(recipe: str, spec: Section) -> dict[str, Draft]:
    return {name: Draft(name, spec.location, body) for name, body in read_recipe(recipe).items()}


def _convert_gpu(spec: Section) -> list[Draft]:
    (draft,) = _drafts("intel-gpu", spec).values()
    where = draft.body["devices"][0]["where"]
    allowed, denied = _ids(spec, "allowIDs"), _ids(spec, "denyIDs")
    if allowed and denied:
        spec.error("denyIDs", "expected either allowed or denied IDs, found both")
    if allowed:
        where["pci.device"] = allowed
    elif denied:
        where["pci.device"] = {"notIn": denied}
    set_replicas(draft, spec.number("sharedDevNum", 1), spec, "sharedDevNum")
    _set_policy(spec, draft, None)
    _set_links(spec, draft)
    if not spec.flag("enableMonitoring"):
        return [draft]
    draft.body["share"] = {"overlap": True}
    names = (
        ["monitoring"] if spec.text("monitoringMode", "single") == "single" else ["i915_monitoring", "xe_monitoring"]
    )
    drafts = [draft]
    for name in names:
        monitor = Draft(f"gpu.intel.com/{name}", spec.locate("enableMonitoring"))
        drivers: Any = ["i915", "xe"] if name == "monitoring" else name.removesuffix("_monitoring")
        monitor.add_source(
            {
                "glob": "/dev/dri/renderD*",
                "where": {"pci.vendor": "0x8086", "driver": drivers},
                "nodes": ["/dev/dri/${drm.render}", "/dev/dri/${drm.card}"],
            }
        )
        monitor.body |= {"tokens": 1, "share": {"overlap": True}}
        drafts.append(monitor)
    return drafts


def _set_links(spec: Section, draft: Draft) -> None:
    """Leave out or keep the links in ``/dev/dri/by-path`` of the container."""
    mode = spec.text("bypathMode", "single") or "single"
    if mode not in ("single", "none", "all"):
        spec.error("bypathMode", f"expected single, none or all, found {mode!r}")
    source = draft.body["devices"][0]
    if mode == "none":
        source["nodes"] = [node for node in source["nodes"] if "as" not in node]
    elif mode == "all":
        message = "a container has the links of its own cards, and not those of all cards"
        spec.unsupported("bypathMode", message, "mount /dev/dri/by-path, which a policy must allow", draft=draft)


def _set_policy(spec: Section, draft: Draft, by: str | None) -> None:
    policy = spec.text("preferredAllocationPolicy")
    if not policy:
        return
    if policy not in _POLICIES:
        spec.error("preferredAllocationPolicy", f"expected balanced, packed or none, found {policy!r}")
        return
    draft.body["preferredAllocation"] = {"policy": _POLICIES[policy]} | ({"by": by} if by else {})


def _ids(spec: Section, key: str) -> list[str]:
    found = [(word.strip(), convert_id(word.strip())) for word in spec.text(key).split(",") if word.strip()]
    for word, converted in found:
        if converted is None:
            spec.error(key, f"expected hexadecimal IDs such as 0x49c5, found {word!r}")
    return [converted for _, converted in found if converted is not None]


def _convert_qat(spec: Section) -> list[Draft]:
    (draft,) = _drafts("qat", spec).values()
    source = draft.body["devices"][0]
    driver = spec.text("dpdkDriver", "vfio-pci") or "vfio-pci"
    if driver == "igb_uio":
        source["where"]["driver"] = "igb_uio"
        source["attributes"]["uio"] = {"path": "/sys/bus/pci/devices/${pci.address}/uio/*"}
        source["nodes"] = ["/dev/${uio}"]
        source.pop("with", None)
    elif driver != "vfio-pci":
        spec.error("dpdkDriver", f"expected vfio-pci or igb_uio, found {driver!r}")
    names = [item.text for item in spec.texts("kernelVfDrivers")]
    if names:
        for name in names:
            if name not in _QAT_DRIVERS:
                hint = f"the plugin knows {', '.join(_QAT_DRIVERS)}"
                spec.error("kernelVfDrivers", f"expected a driver of virtual functions, found {name!r}", hint)
        source["where"]["pci.device"] = [number for name in names for number in _QAT_DRIVERS.get(name, [])] or [
            "0x0443"
        ]
        spec.note("kernelVfDrivers", "the IDs of the devices select the functions of these drivers; genplug does not "
                  "bind a driver", "bind the functions before, for example with driverctl", draft=draft,
                  at=("devices", 0))  # fmt: skip
    _set_policy(spec, draft, "${sriov.pf}")
    if spec.has("maxNumDevices"):
        message = "genplug offers all functions that match"
        spec.unsupported("maxNumDevices", message, "select functions with 'sriov.vfIndex'", draft=draft)
    spec.unsupported_keys({"provisioningConfig": _PROVISIONING}, draft=draft)
    spec.report.note(
        spec.location,
        "Intel's plugin sets QAT0, QAT1 and so on; the variable QAT_DEVICES lists all functions of the container",
        "write 'QAT0: \"${pci.address}\"' under 'allocate.env' for containers with one function",
    )
    return [draft]


def _convert_sgx(spec: Section) -> list[Draft]:
    drafts = _drafts("sgx", spec)
    for key, name in (("enclaveLimit", "sgx.intel.com/enclave"), ("provisionLimit", "sgx.intel.com/provision")):
        set_tokens(drafts[name], spec.number(key, _DEFAULT_LIMIT), spec, key)
    if spec.flag("dcapInfraResources"):
        message = "the resources of the DCAP infrastructure are left out"
        action = "write a resource for /dev/sgx_enclave and /dev/sgx_provision with 'share.overlap'"
        spec.unsupported("dcapInfraResources", message, action)
    return list(drafts.values())


def _convert_queues(spec: Section, prefix: str) -> list[Draft]:
    drafts = [draft for name, draft in _drafts("dsa-iaa", spec).items() if name.startswith(prefix)]
    for draft in drafts:
        draft.body.pop("replicas", None)
        if draft.name.endswith("-shared"):
            set_replicas(draft, spec.number("sharedDevNum", 1), spec, "sharedDevNum")
    spec.unsupported_keys({"provisioningConfig": _PROVISIONING})
    if spec.text("driver", "idxd") not in ("", "idxd"):
        message = "the resources are work queues of the driver idxd"
        spec.unsupported("driver", message, "write a resource for the functions with 'driver: vfio-pci' by hand")
    return drafts


def _convert_npu(spec: Section) -> list[Draft]:
    (draft,) = _drafts("intel-npu", spec).values()
    draft.body.pop("replicas", None)
    set_replicas(draft, spec.number("sharedDevNum", 1), spec, "sharedDevNum")
    return [draft]


def _convert_fpga(spec: Section) -> list[Draft]:
    mode = spec.text("mode", "af") or "af"
    drafts = _drafts("fpga-dfl", spec)
    if mode not in ("af", "region", "regiondevel"):
        spec.error("mode", f"expected af, region or regiondevel, found {mode!r}")
    elif mode != "af":
        message = "genplug does not program a region when a container starts; the resource is the programmed function"
        spec.unsupported("mode", message, "docs/how-to/hardware/fpga.md has the variant that programs cards")
    message = "the name of the resource has the complete ID of the function, and not its short form"
    spec.report.note(spec.location, message, "change the requests of the pods")
    if mode != "regiondevel":
        drafts.pop("fpga.intel.com/management", None)
    return list(drafts.values())


def _convert_dlb(spec: Section) -> list[Draft]:
    drafts = []
    for name, is_virtual in (("pf", False), ("vf", True)):
        draft = Draft(f"dlb.intel.com/{name}", spec.location)
        draft.add_source(
            {"glob": "/dev/dlb[0-9]*", "where": {"sriov.pf": {"exists": is_virtual}}, "id": "${pci.address}"}
        )
        drafts.append(draft)
    return drafts


_CONVERTERS: Mapping[str, Callable[[Section], list[Draft]]] = {
    "gpu": _convert_gpu,
    "qat": _convert_qat,
    "sgx": _convert_sgx,
    "dsa": lambda spec: _convert_queues(spec, "dsa."),
    "iaa": lambda spec: _convert_queues(spec, "iaa."),
    "npu": _convert_npu,
    "fpga": _convert_fpga,
    "dlb": _convert_dlb,
}
