"""Names that somebody else makes rules for: resources, environment variables, annotations; and attribute names."""

import re

CANDIDATE_ATTRIBUTES = ("path", "name", "index", "type", "major", "minor", "target")
"""Attributes that a candidate has by itself."""

LATER_ATTRIBUTES = (
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
    "node.name",
    "slice",
)
"""Attributes of the language that this version cannot read yet."""
LATER_PREFIXES = ("attr.", "env.")

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_MOST_PREFIX = 244
_MOST_NAME = 63
_RESERVED_ANNOTATIONS = ("cdi.k8s.io/", "io.kubernetes.")


def resource_name_fault(name: str) -> str:
    """Say why the kubelet would refuse a resource name (contract 2.2: ``IsExtendedResourceName``); empty if not."""
    prefix, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        return "a resource name is a domain, one '/', and a name"
    if "kubernetes.io/" in name:
        return "names under kubernetes.io/ belong to Kubernetes itself"
    if prefix.startswith("requests."):
        return "a name may not start with 'requests.', which quotas use"
    if len(prefix) > _MOST_PREFIX:
        return f"the part before '/' has {len(prefix)} characters, {_MOST_PREFIX} are allowed"
    if not _SUBDOMAIN.match(prefix):
        return "the part before '/' is no DNS name (lower-case letters, digits, '-' and '.')"
    if len(rest) > _MOST_NAME:
        return f"the part after '/' has {len(rest)} characters, {_MOST_NAME} are allowed"
    if not _NAME.match(rest):
        return "the part after '/' must be letters, digits, '-', '_' and '.', with a letter or digit at both ends"
    return ""


def env_name_fault(name: str) -> str:
    """Say why a name is none for an environment variable; empty if it is."""
    fault = "a variable's name is letters, digits, '_', '-' and '.', and begins with no digit"
    return "" if _ENV.match(name) else fault


def annotation_key_fault(key: str) -> str:
    """Say why a key may not annotate a container (contract 9.2); empty if it may."""
    if key.startswith(_RESERVED_ANNOTATIONS):
        return "this prefix belongs to the kubelet and the runtime: it could hand out other devices"
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.match(prefix)) or not _NAME.match(name) or len(name) > _MOST_NAME:
        return "an annotation's key is an optional domain and '/', then a name of at most 63 characters"
    return ""


def is_later_attribute(name: str) -> bool:
    """Say whether the language has an attribute that this version cannot read yet."""
    return name in LATER_ATTRIBUTES or name.startswith(LATER_PREFIXES)
