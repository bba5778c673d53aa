"""Validation of externally defined names (resources, environment variables, annotations, CDI) and attribute names."""

import re

CANDIDATE_ATTRIBUTES = ("path", "name", "index", "type", "major", "minor", "target")
"""Attributes of every candidate."""

FILE_PREFIX = "attr."
"""Prefix of attributes that name a file in the device's sysfs directory."""
ENVIRONMENT_PREFIX = "env."
"""Prefix of attributes that name an environment variable of the genplug process."""
NODE_NAME = "node.name"
RESOURCE = "resource"
DRIVER_DOMAIN = "genplug.io"
"""The name of the driver of Dynamic Resource Allocation, and the domain of the attributes that genplug publishes."""
"""The name of the resource that a container requests; only defined for containers."""
SLICE = "slice"
"""The number of a slice; only defined for containers that get slices."""

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
    """Return why the kubelet would reject a resource name, or an empty string.

    The rules are those of ``IsExtendedResourceName`` (docs/internals/kubelet-contract.md §2.2).
    """
    if name.count("/") != 1:
        return "a resource name consists of a domain, one '/' and a name"
    prefix, rest = name.split("/")
    if "kubernetes.io/" in name:
        return "names under kubernetes.io/ are reserved for Kubernetes"
    if prefix.startswith("requests."):
        return "a name must not start with 'requests.', which is reserved for quotas"
    if len(prefix) > _MAX_PREFIX:
        return f"the part before '/' has {len(prefix)} characters, at most {_MAX_PREFIX} are allowed"
    if not _SUBDOMAIN.match(prefix):
        return "the part before '/' is not a DNS name (lower-case letters, digits, '-' and '.')"
    if len(rest) > _MAX_NAME:
        return f"the part after '/' has {len(rest)} characters, at most {_MAX_NAME} are allowed"
    if not _NAME.match(rest):
        return (
            "the part after '/' must consist of letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        )
    return ""


def is_subdomain(text: str) -> bool:
    """Return whether a text is a DNS subdomain (RFC 1123) of any length."""
    return _SUBDOMAIN.match(text) is not None


def sanitize_for_resource_name(text: str) -> str:
    """Return a value for use in a resource name: characters that are not allowed become ``-``."""
    return _NOT_IN_NAMES.sub("-", text).strip("-_.")


def env_name_error(name: str) -> str:
    """Return why a name is not a valid environment variable name, or an empty string."""
    error = "environment variable names consist of letters, digits, '_', '-' and '.', and must not start with a digit"
    return "" if _ENV.match(name) else error


def annotation_key_error(key: str) -> str:
    """Return why a key is not allowed as a container annotation, or an empty string.

    See docs/internals/kubelet-contract.md §9.2.
    """
    if key.startswith(_RESERVED_ANNOTATIONS):
        return (
            "this prefix is reserved for the kubelet and the container runtime, which could inject other devices for it"
        )
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.match(prefix)) or not _NAME.match(name) or len(name) > _MAX_NAME:
        return "an annotation key consists of an optional domain and '/', then a name of at most 63 characters"
    return ""


def cdi_device_error(name: str) -> str:
    """Return why a name is not a qualified CDI device name, or an empty string.

    See docs/internals/kubelet-contract.md §8.
    """
    kind, equals, device = name.partition("=")
    vendor, slash, of_class = kind.partition("/")
    if not equals or not slash:
        return "a CDI device name has the form VENDOR/CLASS=DEVICE"
    if not _CDI_VENDOR.match(vendor) or not _CDI_VENDOR.match(of_class):
        return "vendor and class start with a letter and consist of letters, digits, '_', '-' and '.'"
    if not _CDI_DEVICE.match(device):
        return "a CDI device name consists of letters, digits, '_-.:', and begins and ends with a letter or digit"
    return ""


def is_node_attribute(name: str) -> bool:
    """Return whether an attribute has the same value for every device of a container."""
    return name in {NODE_NAME, RESOURCE} or name.startswith(ENVIRONMENT_PREFIX)


def is_attribute_name(name: str) -> bool:
    """Return whether a name is a valid attribute name."""
    return _ATTRIBUTE.match(name) is not None
