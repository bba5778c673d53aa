"""The rules of Dynamic Resource Allocation (DRA) for the names and values that are published with a device. Pure.

The rules are those of Kubernetes for ``resource.k8s.io/v1`` (pkg/apis/resource/validation/validation.go).
"""

import re

from genplug.spec.model import AttributeType
from genplug.spec.names import is_subdomain
from genplug.spec.quantity import canonicalize_quantity

MAX_NAME_CHARACTERS = 32
"""The longest identifier in the name of an attribute or a capacity (``DeviceMaxIDLength``)."""
MAX_DOMAIN_CHARACTERS = 63
"""The longest domain in the name of an attribute or a capacity (``DeviceMaxDomainLength``)."""
MAX_VALUE_BYTES = 64
"""The longest string or version (``DeviceAttributeMaxValueLength``)."""
MAX_OWN_VALUES = 27
"""Attributes and capacities of a configuration: 32 in a device, less :data:`RESERVED_NAMES` and the standard ones."""
RESERVED_NAMES = ("resource", "device")
"""The attributes that genplug publishes with every device, without a domain."""
STANDARD_DOMAIN = "resource.kubernetes.io"
"""The domain of the attributes that Kubernetes defines."""
MIN_INT, MAX_INT = -(1 << 63), (1 << 63) - 1

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_INT = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\Z")
_PRE_RELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
    rf"(?:-{_PRE_RELEASE}(?:\.{_PRE_RELEASE})*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\Z"
)
_BOOLEANS = {"true": True, "1": True, "y": True, "false": False, "0": False, "n": False}
"""The words of YAML, and the forms in which the kernel shows booleans of parameters (kernel/params.c) and flags."""


def is_dns_label(name: str) -> bool:
    """Return whether a name is a DNS label (RFC 1123), as the name of a published device must be."""
    return _LABEL.match(name) is not None


def published_name_error(name: str) -> str:
    """Return why the API server would reject the name of an attribute or a capacity, or an empty string."""
    domain, slash, identifier = name.rpartition("/")
    if slash and not is_subdomain(domain):
        return "the part before '/' is not a DNS name (lower-case letters, digits, '-' and '.')"
    if len(domain) > MAX_DOMAIN_CHARACTERS:
        return f"the part before '/' has {len(domain)} characters, at most {MAX_DOMAIN_CHARACTERS} are allowed"
    where = "the part after '/'" if slash else "the name"
    if not _IDENTIFIER.match(identifier):
        return f"{where} must consist of letters, digits and '_', and must not start with a digit"
    if len(identifier) > MAX_NAME_CHARACTERS:
        return f"{where} has {len(identifier)} characters, at most {MAX_NAME_CHARACTERS} are allowed"
    return ""


def value_error(kind: AttributeType, text: str) -> str:
    """Return why a text cannot be the value of an attribute of a type, as a predicate, or an empty string."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if kind is AttributeType.INT:
        return "" if parse_int(text) is not None else "is not an integer of 64 bits"
    if kind is AttributeType.BOOL:
        return "" if parse_bool(text) is not None else "is not a boolean: true or false, 1 or 0, Y or N"
    if kind is AttributeType.VERSION and not _VERSION.match(text):
        return "is not a semantic version, for example 2.1.0"
    return f"has {length} bytes, at most {MAX_VALUE_BYTES} are allowed" if length > MAX_VALUE_BYTES else ""


def quantity_error(text: str) -> str:
    """Return why a text cannot be a capacity, as a predicate, or an empty string."""
    return "" if canonicalize_quantity(text) is not None else "is not a quantity, for example 8 or 16Gi"


def parse_int(text: str) -> int | None:
    """Return an integer of 64 bits, decimal or hexadecimal with ``0x``, or None."""
    if not _INT.match(text):
        return None
    number = int(text, 16 if "x" in text.lower() else 10)
    return number if MIN_INT <= number <= MAX_INT else None


def parse_bool(text: str) -> bool | None:
    """Return a boolean, or None if a text is not one."""
    return _BOOLEANS.get(text.lower())
