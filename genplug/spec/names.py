"""Names that somebody else makes rules for: resources, environment variables, annotations; and attribute names."""

import re

CANDIDATE_ATTRIBUTES = ("path", "name", "index", "type", "major", "minor", "target")
"""Attributes that a candidate has by itself."""

SYSFS_ATTRIBUTES = (
    "sysfs",
    "subsystem",
    "driver",
    "numaNode",
    "localCpus",
    "pci.address",
    "pci.vendor",
    "pci.device",
    "pci.subsystemVendor",
    "pci.subsystemDevice",
    "pci.class",
    "pci.slot",
    "iommu.group",
    "sriov.pf",
    "sriov.vfIndex",
    "usb.vendor",
    "usb.product",
    "usb.serial",
    "usb.port",
    "ib.device",
    "ib.linkLayer",
    "ib.guid",
    "drm.card",
    "drm.render",
)
"""Attributes that begin at the device's place in /sys."""
FILE_PREFIX = "attr."
"""Before the name of a file of the device's in /sys."""
ENVIRONMENT_PREFIX = "env."
"""Before the name of a variable of the program's own environment."""
NODE_NAME = "node.name"
SLICE = "slice"
"""The number of a slice; only where a container gets slices."""

KNOWN_ATTRIBUTES = (*CANDIDATE_ATTRIBUTES, *SYSFS_ATTRIBUTES, NODE_NAME)
"""Every attribute of the language that has one name."""

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_NOT_IN_NAMES = re.compile(r"[^-A-Za-z0-9_.]+")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_CDI_VENDOR = re.compile(r"[A-Za-z](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_CDI_DEVICE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]*[A-Za-z0-9])?\Z")
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
_MAX_PREFIX = 244
_MAX_NAME = 63
_RESERVED_ANNOTATIONS = ("cdi.k8s.io/", "io.kubernetes.")


def resource_name_error(name: str) -> str:
    """Say why the kubelet would refuse a resource name (contract 2.2: ``IsExtendedResourceName``); empty if not."""
    prefix, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        return "a resource name is a domain, one '/', and a name"
    if "kubernetes.io/" in name:
        return "names under kubernetes.io/ belong to Kubernetes itself"
    if prefix.startswith("requests."):
        return "a name may not start with 'requests.', which quotas use"
    if len(prefix) > _MAX_PREFIX:
        return f"the part before '/' has {len(prefix)} characters, {_MAX_PREFIX} are allowed"
    if not _SUBDOMAIN.match(prefix):
        return "the part before '/' is no DNS name (lower-case letters, digits, '-' and '.')"
    if len(rest) > _MAX_NAME:
        return f"the part after '/' has {len(rest)} characters, {_MAX_NAME} are allowed"
    if not _NAME.match(rest):
        return "the part after '/' must be letters, digits, '-', '_' and '.', with a letter or digit at both ends"
    return ""


def sanitize_for_resource_name(text: str) -> str:
    """Return a value as it can stand in a resource's name: what may not be there becomes ``-``."""
    return _NOT_IN_NAMES.sub("-", text).strip("-_.")


def env_name_error(name: str) -> str:
    """Say why a name is none for an environment variable; empty if it is."""
    fault = "a variable's name is letters, digits, '_', '-' and '.', and begins with no digit"
    return "" if _ENV.match(name) else fault


def annotation_key_error(key: str) -> str:
    """Say why a key may not annotate a container (contract 9.2); empty if it may."""
    if key.startswith(_RESERVED_ANNOTATIONS):
        return "this prefix belongs to the kubelet and the runtime: it could hand out other devices"
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.match(prefix)) or not _NAME.match(name) or len(name) > _MAX_NAME:
        return "an annotation's key is an optional domain and '/', then a name of at most 63 characters"
    return ""


def cdi_device_error(name: str) -> str:
    """Say why a name is none of a CDI device (contract 8: names); empty if it is one."""
    kind, equals, device = name.partition("=")
    vendor, slash, of_class = kind.partition("/")
    if not equals or not slash:
        return "a CDI device's name is VENDOR/CLASS=DEVICE"
    if not _CDI_VENDOR.match(vendor) or not _CDI_VENDOR.match(of_class):
        return "vendor and class begin with a letter and hold letters, digits, '_', '-' and '.'"
    if not _CDI_DEVICE.match(device):
        return "a device's name holds letters, digits, '_', '-', '.' and ':', with a letter or digit at both ends"
    return ""


def is_attribute_name(name: str) -> bool:
    """Say whether an attribute can be called so."""
    return _ATTRIBUTE.match(name) is not None


def is_known_attribute(name: str) -> bool:
    """Say whether the language has an attribute of this name."""
    if name.startswith((FILE_PREFIX, ENVIRONMENT_PREFIX)):
        return len(name.partition(".")[2]) > 0
    return name in KNOWN_ATTRIBUTES


def needs_sysfs(name: str) -> bool:
    """Say whether an attribute of the language is read at the device's place in /sys."""
    return name in SYSFS_ATTRIBUTES or name.startswith(FILE_PREFIX)
