"""The words of other device plugins, of Kubernetes and of Helm, with the word that genplug has for each.

The schema check adds a hint from this table to an unknown key (docs/how-to/migrate has the same words in context).
"""

import re
from collections.abc import Mapping
from enum import StrEnum


class Level(StrEnum):
    """The mapping in a configuration or a policy that has an unknown key."""

    FILE = "file"
    POLICY = "policy"
    RESOURCE = "resource"
    DEVICES = "devices"
    NODE = "node"
    ALLOCATE = "allocate"
    MOUNT = "mount"
    HEALTH = "health"
    PROBE = "probe"
    OTHER = "other"


_ENTRIES = {
    "devices": Level.DEVICES,
    "nodes": Level.NODE,
    "with": Level.NODE,
    "mounts": Level.MOUNT,
    "probes": Level.PROBE,
}
_ENTRY = re.compile(r"\.(devices|nodes|with|mounts|probes)\[\d+\]\Z")
_PART = re.compile(r"\.(allocate|health|share|preferredAllocation|preStart|env|annotations|where|attributes)\Z")
_RESOURCE = re.compile(r"resources\.[^/]+/[^/\[\]]+\Z|defaults\Z")


def find_level(key_path: str, *, is_policy: bool = False) -> Level:
    """Return the level of the mapping at a path of keys, for example ``resources.a.io/x.devices[0]``."""
    if is_policy:
        return Level.OTHER if key_path else Level.POLICY
    if not key_path:
        return Level.FILE
    if entry := _ENTRY.search(key_path):
        return _ENTRIES[entry[1]]
    if part := _PART.search(key_path):
        return Level(part[1]) if part[1] in list(Level) else Level.OTHER
    return Level.RESOURCE if _RESOURCE.match(key_path) else Level.OTHER


def translate_key(key: str, key_path: str, *, is_policy: bool = False) -> str:
    """Return a hint with genplug's word for an unknown key of a configuration or a policy, or an empty string."""
    words = _WORDS.get(find_level(key_path, is_policy=is_policy), {})
    return words.get(_normalize(key), "")


def _normalize(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


_SHARE = "write 'tokens: 10' to let 10 containers share all devices, or 'replicas: 10' to list each device 10 times"
_REPLICAS = "write 'replicas: 4' to list each device 4 times"
_NAME = "the name of a resource is its key under 'resources': 'vendor.example/thing:'"
_CHART = "this is a value of genplug's chart, not part of the configuration: see 'daemonset' in docs/reference/chart.md"
_GLOB = "write 'glob: /dev/ttyUSB*' in an entry of 'devices'"
_USB = "write 'where: {usb.vendor: \"1a86\", usb.product: \"7523\"}' in an entry of 'devices'"
_PCI = "write 'where: {pci.vendor: \"0x10de\", pci.device: \"0x1eb8\"}' in an entry of 'devices'"
_VENDOR = "write 'where: {usb.vendor: \"1a86\"}' or 'where: {pci.vendor: \"0x10de\"}' in an entry of 'devices'"
_PRODUCT = "write 'where: {usb.product: \"7523\"}' or 'where: {pci.device: \"0x1eb8\"}' in an entry of 'devices'"
_SERIAL = "write 'where: {usb.serial: \"A1234\"}' in an entry of 'devices'"
_DRIVER = "write 'where: {driver: vfio-pci}' in an entry of 'devices'"
_ADDRESS = "write 'where: {pci.address: \"0000:3b:00.0\"}' in an entry of 'devices'"
_WHERE = "write the conditions under 'where' in an entry of 'devices', for example 'where: {driver: vfio-pci}'"
_ENV = "write the variables under 'allocate': 'allocate: {env: {NAME: \"${path}\"}}'"
_MOUNTS = "write the mounts under 'allocate': 'allocate: {mounts: [{hostPath: /a, containerPath: /b}]}'"
_HEALTH = "write probes under 'health': 'health: {probes: [{file: {path: \"${sysfs}/state\", equals: ok}}]}'"
_AS = "write 'as: /dev/name' for the path in the container"
_NODES = "write further device nodes of a device under 'with' in an entry of 'devices'"
_MAXIMUM = "write 'share: {maxPerContainer: 1}' to limit how many devices a container receives"

_COUNTING = {
    "count": _SHARE,
    "capacity": _SHARE,
    "nummaxdevices": _SHARE,
    "numdevices": _SHARE,
    "maxdevices": _SHARE,
    "rdmahcamax": _SHARE,
    "quantity": _SHARE,
    "size": _SHARE,
    "amount": _SHARE,
    "instances": _SHARE,
    "limit": _REPLICAS,
    "timeslicing": _REPLICAS,
    "mps": _REPLICAS,
    "shareddevnum": _REPLICAS,
    "shares": _REPLICAS,
    "limits": _MAXIMUM,
    "max": _MAXIMUM,
    "maxlimit": _MAXIMUM,
}
_MATCHING = {
    "path": _GLOB,
    "paths": _GLOB,
    "pattern": _GLOB,
    "patterns": _GLOB,
    "regex": _GLOB,
    "devicematch": _GLOB,
    "device": _GLOB,
    "devnode": _GLOB,
    "devpath": _GLOB,
    "hostpath": _GLOB,
    "usb": _USB,
    "pci": _PCI,
    "pcivendorselector": _PCI,
    "vendor": _VENDOR,
    "vendors": _VENDOR,
    "vendorid": _VENDOR,
    "idvendor": _VENDOR,
    "product": _PRODUCT,
    "products": _PRODUCT,
    "productid": _PRODUCT,
    "idproduct": _PRODUCT,
    "deviceids": _PRODUCT,
    "deviceid": _PRODUCT,
    "serial": _SERIAL,
    "serialnumber": _SERIAL,
    "driver": _DRIVER,
    "drivers": _DRIVER,
    "pciaddresses": _ADDRESS,
    "pciaddress": _ADDRESS,
    "rootdevices": _ADDRESS,
    "pfnames": "write 'where: {sriov.pf: \"0000:3b:00.0\"}' in an entry of 'devices'",
    "ifnames": "write 'where: {net.interface: ens1f0np0}' in an entry of 'devices'",
    "selectors": _WHERE,
    "selector": _WHERE,
    "match": _WHERE,
    "matches": _WHERE,
    "filter": _WHERE,
    "filters": _WHERE,
    "matchproperties": _WHERE,
    "udevrules": _WHERE,
    "subsystem": "write 'where: {subsystem: video4linux}' in an entry of 'devices'",
    "discoverydetails": _WHERE,
    "discoveryhandler": _WHERE,
}
_NAMING = dict.fromkeys(("name", "domain", "resourcename", "resourceprefix", "resource"), _NAME)
_CONTAINER = {
    **dict.fromkeys(("envs", "environment", "brokerproperties"), _ENV),
    **dict.fromkeys(("volumes", "volumemounts", "volumemount", "binds"), _MOUNTS),
}
_CHECKING = dict.fromkeys(
    ("healthcheck", "healthchecks", "healthcheckinterval", "healthcheckintervalseconds", "livenessprobe"), _HEALTH
) | {"readinessprobe": _HEALTH, "checks": _HEALTH}
_PERMISSIONS = "write 'permissions: r' for a device node that a container may only read"

_WORDS: Mapping[Level, Mapping[str, str]] = {
    Level.FILE: {
        **_NAMING,
        "devices": "write them under the name of a resource: 'resources: {vendor.example/thing: {devices: [...]}}'",
        "devicelist": "write the devices of a resource under its name in 'resources'",
        "resourcelist": "write a mapping of names under 'resources'",
        "config": "this is a value of genplug's chart: write its content at the top level, or use 'validate --values'",
        "pools": _CHART,
        "nodeselector": _CHART,
        "tolerations": _CHART,
        "daemonset": _CHART,
        "privileged": _CHART,
        "policy": "a policy is a file of its own, which --policy names",
        "nodes": "write 'defaults' and 'resources' of a node in a file node.NAME.yaml beside this file",
        "metadata": "remove it: a configuration is a file, not an object of the cluster",
        "spec": "write the keys below it at the top level: a configuration is a file, not an object of the cluster",
        "data": "write the configuration itself: a ConfigMap has it below 'data'",
        "include": "pass several files or a directory with --config; genplug merges them",
    },
    Level.POLICY: {
        "metadata": "remove it: a policy is a file, not an object of the cluster",
        "spec": "write the keys below it at the top level: a policy is a file, not an object of the cluster",
        "data": "write the policy itself: a ConfigMap has it below 'data'",
        "policy": "write the keys below it at the top level; the chart has them under 'policy'",
        "allowed": "write globs under 'resources', 'devices.allow' or 'mounts.allow'",
        "allowlist": "write globs under 'resources', 'devices.allow' or 'mounts.allow'",
        "denylist": "write globs under 'devices.deny'",
        "programs": "write globs under 'exec.allow'",
        "privilegedprobes": "write 'openProbe: true'",
    },
    Level.RESOURCE: {
        **_COUNTING,
        **_MATCHING,
        **_NAMING,
        **_CONTAINER,
        **_CHECKING,
        "groups": "write each group as an entry of 'devices', for example 'devices: [{glob: /dev/ttyUSB*}]'",
        "hostdevices": _GLOB,
        "mountpath": "write 'nodes: [{path: \"${path}\", as: /dev/name}]' in an entry of 'devices'",
        "permissions": "write 'nodes: [{path: \"${path}\", permissions: r}]' in an entry of 'devices'",
        "optional": _NODES,
        "numa": "genplug reads the NUMA node of a device; write 'topology: none' to leave it out",
        "numanode": "genplug reads the NUMA node of a device; write 'topology: none' to leave it out",
        "cdi": "write 'allocate: {inject: cdi}' for CDI files of genplug, or names under 'allocate.cdiDevices'",
        "allocationpolicy": "write 'preferredAllocation: {policy: packed}'",
        "prestartrequired": "write 'preStart: {exec: {command: [/usr/bin/reset-device]}}'",
        "prestartcontainer": "write 'preStart: {exec: {command: [/usr/bin/reset-device]}}'",
        "renamebydefault": "write another name for the shared resource as its key under 'resources'",
        "failrequestsgreaterthanone": _MAXIMUM,
        "requests": _MAXIMUM,
        "exclusive": "remove it: a device belongs to one container unless 'replicas', 'tokens' or 'slices' shares it",
        "nodeselector": _CHART,
        "tolerations": _CHART,
        "privileged": _CHART,
        "enabled": "to remove a resource that another file defines, set the resource to null",
        "disabled": "to remove a resource that another file defines, set the resource to null",
    },
    Level.DEVICES: {
        **dict.fromkeys(_COUNTING, "write it beside 'devices': 'tokens: 10', 'replicas: 4' or 'share: {...}'"),
        **_MATCHING,
        **_CONTAINER,
        **_NAMING,
        "path": "write 'glob: /dev/ttyUSB*'; a path without wildcards is a glob, too",
        "paths": "write 'glob: [/dev/ttyUSB*, /dev/ttyACM*]'; write further device nodes of a device under 'with'",
        "regex": "write 'glob: /dev/nvidia[0-9]*'; globs have *, ?, [...], {a,b} and **",
        "groups": "write each group as an entry of 'devices'",
        "group": "write 'groupBy: \"${pci.address}\"' to combine paths into one device",
        "grouprecursive": "write 'groupBy: \"${usb.port}\"' to combine paths into one device",
        "mountpath": "write 'nodes: [{path: \"${path}\", as: /dev/name}]' for another path in the container",
        "containerpath": "write 'nodes: [{path: \"${path}\", as: /dev/name}]' for another path in the container",
        "permissions": "write 'nodes: [{path: \"${path}\", permissions: r}]'",
        "readonly": "write 'nodes: [{path: \"${path}\", permissions: r}]'",
        "optional": "write it in an entry of 'nodes' or 'with'",
        "extra": _NODES,
        "companions": _NODES,
        "additionaldevices": _NODES,
        "ignore": "write 'exclude: /dev/tty0'",
        "deny": "write 'exclude: /dev/tty0'",
        "symlink": "a glob over symlinks works: 'glob: /dev/serial/by-id/*'",
    },
    Level.NODE: {
        **dict.fromkeys(("mountpath", "containerpath", "target", "destination", "pathincontainer", "dest"), _AS),
        **dict.fromkeys(("hostpath", "source", "glob", "pathonhost", "device"), "write 'path: /dev/name'"),
        "readonly": _PERMISSIONS,
        "access": _PERMISSIONS,
        "cgrouppermissions": _PERMISSIONS,
        "required": "a device node is required unless it has 'optional: true'",
    },
    Level.ALLOCATE: {
        **dict.fromkeys(
            ("envs", "environment", "variables"), "write the variables under 'env': 'env: {NAME: \"${path}\"}'"
        ),
        **dict.fromkeys(("volumes", "volumemounts", "binds"), "write 'mounts: [{hostPath: /a, containerPath: /b}]'"),
        "cdi": "write 'inject: cdi' for CDI files of genplug, or names under 'cdiDevices'",
        "devices": "write device nodes under 'nodes' or 'with' in an entry of 'devices'",
        "labels": "write 'annotations'; a device plugin cannot set labels",
    },
    Level.MOUNT: {
        **dict.fromkeys(("mountpath", "target", "destination", "dest", "as"), "write 'containerPath: /path'"),
        **dict.fromkeys(("path", "source", "src"), "write 'hostPath: /path'"),
        "ro": "write 'readOnly: true'",
        "writable": "write 'readOnly: false'",
    },
    Level.HEALTH: {
        "interval": "write 'periodSeconds: 10'",
        "intervalseconds": "write 'periodSeconds: 10'",
        "period": "write 'periodSeconds: 10'",
        "timeout": "write 'timeoutSeconds: 1'",
        "retries": "write 'failureThreshold: 3'",
        "checks": "write them under 'probes'",
        "livenessprobe": "write it under 'probes'",
        "readinessprobe": "write it under 'probes'",
        "graceperiod": "write 'removalGracePeriodSeconds: 60'",
    },
    Level.PROBE: {
        "httpget": "write 'http: {url: \"http://127.0.0.1:8080/healthz\"}'",
        "command": "write 'exec: {command: [/usr/bin/check]}'",
        "cmd": "write 'exec: {command: [/usr/bin/check]}'",
        "interval": "write 'periodSeconds: 10'",
        "intervalseconds": "write 'periodSeconds: 10'",
        "period": "write 'periodSeconds: 10'",
        "timeout": "write 'timeoutSeconds: 1'",
        "retries": "write 'failureThreshold: 3'",
        "initialdelayseconds": "remove it: the first result of a probe counts when a device appears",
        "exists": "write 'file: {path: \"${sysfs}/state\", exists: true}'",
    },
}
