"""The validation of ResourceSlices, with the rules and texts of Kubernetes 1.37.

Source: k8s.io/kubernetes, pkg/apis/resource/validation/validation.go. Fields that drivers of devices on a node do not
use, such as shared counters, are accepted without validation.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_NUMBER = r"(0|[1-9]\d*)"
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)
_MAX_SUBDOMAIN = 253
_MAX_LABEL = 63
_MAX_IDENTIFIER = 32
_MAX_ATTRIBUTES = 32
_MAX_VALUE_BYTES = 64
_MAX_TAINTS = 16
_MAX_DEVICES = 128
_MAX_DEVICES_WITH_TAINTS = 64
_EFFECTS = ("NoExecute", "NoSchedule", "None")
_SUBDOMAIN_TEXT = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
_LABEL_TEXT = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
_IMMUTABLE = ("driver", "nodeName")
_NODE_FIELDS = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")

Cause = tuple[str, str]
"""The path of a field, and the error."""


def validate_slice(slice_: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> list[Cause]:
    """Return the errors of a slice; ``previous`` is the slice that an update replaces."""
    return list(_validate_slice(slice_, previous))


def _validate_slice(slice_: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Iterator[Cause]:
    yield from _check_subdomain(str(slice_["metadata"]["name"]), "metadata.name")
    spec = slice_.get("spec") or {}
    pool = spec.get("pool") or {}
    yield from _check_subdomain(str(spec.get("driver") or ""), "spec.driver", _MAX_LABEL)
    yield from _check_pool(pool)
    if previous is not None:
        before = previous["spec"]
        pairs = [(f"spec.{name}", spec.get(name), before.get(name)) for name in _IMMUTABLE]
        pairs.append(("spec.pool.name", pool.get("name"), before["pool"].get("name")))
        yield from (
            (path, f'Invalid value: "{value}": field is immutable') for path, value, old in pairs if value != old
        )
    selections = [name for name in _NODE_FIELDS if spec.get(name)]
    if len(selections) != 1:
        names = ", ".join(f"`{name}`" for name in _NODE_FIELDS)
        yield "spec", f"Required value: exactly one of {names} is required"
    if spec.get("nodeName"):
        yield from _check_subdomain(str(spec["nodeName"]), "spec.nodeName")
    if spec.get("sharedCounters") and spec.get("devices"):
        yield "spec", 'Invalid value: "": only one of `sharedCounters` or `devices` is allowed'
    yield from _check_devices(spec.get("devices") or ())


def _check_pool(pool: Mapping[str, Any]) -> Iterator[Cause]:
    name = str(pool.get("name") or "")
    if not name:
        yield "spec.pool.name", "Required value"
    if len(name) > _MAX_SUBDOMAIN:
        yield "spec.pool.name", f"Too long: may not be more than {_MAX_SUBDOMAIN} bytes"
    for part in name.split("/") if name else ():
        yield from _check_subdomain(part, "spec.pool.name")
    if pool.get("resourceSliceCount", 0) <= 0:
        count = pool.get("resourceSliceCount", 0)
        yield "spec.pool.resourceSliceCount", f"Invalid value: {count}: must be greater than zero"
    if pool.get("generation", 0) < 0:
        yield "spec.pool.generation", f"Invalid value: {pool['generation']}: must be greater than or equal to zero"


def _check_devices(devices: Sequence[Mapping[str, Any]]) -> Iterator[Cause]:
    is_advanced = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    limit = _MAX_DEVICES_WITH_TAINTS if is_advanced else _MAX_DEVICES
    if len(devices) > limit:
        yield "spec.devices", f"Too many: {len(devices)}: must have at most {limit} items"
        return
    names = set()
    for number, device in enumerate(devices):
        path = f"spec.devices[{number}]"
        yield from _check_device(device, path)
        name = device.get("name")
        if name in names:
            yield path, f'Duplicate value: "{name}"'
        names.add(name)


def _check_device(device: Mapping[str, Any], path: str) -> Iterator[Cause]:
    name = str(device.get("name") or "")
    if not name:
        yield f"{path}.name", "Required value"
    elif len(name) > _MAX_LABEL or not _DNS_LABEL.fullmatch(name):
        yield f"{path}.name", f'Invalid value: "{name}": {_LABEL_TEXT}'
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if (count := len(attributes) + len(capacity)) > _MAX_ATTRIBUTES:
        text = f"the total number of attributes and capacities must not exceed {_MAX_ATTRIBUTES}"
        yield path, f"Invalid value: {count}: {text}"
    for key, value in attributes.items():
        yield from _check_qualified_name(key, f"{path}.attributes")
        yield from _check_attribute(value, f"{path}.attributes[{key}]")
    for key, value in capacity.items():
        yield from _check_qualified_name(key, f"{path}.capacity")
        if not _QUANTITY.fullmatch(str(value.get("value"))):
            yield f"{path}.capacity[{key}].value", "quantities must match the regular expression"
        if value.get("requestPolicy") and not device.get("allowMultipleAllocations"):
            yield f"{path}.capacity[{key}].requestPolicy", "Forbidden: allowMultipleAllocations must be true"
    taints = device.get("taints") or ()
    if len(taints) > _MAX_TAINTS:
        yield f"{path}.taints", f"Too many: {len(taints)}: must have at most {_MAX_TAINTS} items"
        return
    for number, taint in enumerate(taints):
        yield from _check_taint(taint, f"{path}.taints[{number}]")


def _check_attribute(value: Mapping[str, Any], path: str) -> Iterator[Cause]:
    types = [name for name in ("bool", "int", "string", "version") if value.get(name) is not None]
    types += [name for name in ("bools", "ints", "strings", "versions") if value.get(name) is not None]
    if len(types) != 1:
        yield path, 'Invalid value: "": exactly one value must be specified'
    for name in ("string", "version"):
        text = value.get(name)
        if text is not None and len(str(text).encode()) > _MAX_VALUE_BYTES:
            yield f"{path}.{name}", f"Too long: may not be more than {_MAX_VALUE_BYTES} bytes"
    version = value.get("version")
    if version is not None and not _VERSION.fullmatch(str(version)):
        text = "must be a string compatible with semver.org spec 2.0.0"
        yield f"{path}.version", f'Invalid value: "{version}": {text}'


def _check_taint(taint: Mapping[str, Any], path: str) -> Iterator[Cause]:
    domain, _, name = str(taint.get("key") or "").rpartition("/")
    if not name or len(name) > _MAX_LABEL or not _LABEL_NAME.fullmatch(name):
        yield (
            f"{path}.key",
            f'Invalid value: "{taint.get("key", "")}": name part must consist of alphanumeric characters',
        )
    if domain:
        yield from _check_subdomain(domain, f"{path}.key")
    value = str(taint.get("value") or "")
    if value and (len(value) > _MAX_LABEL or not _LABEL_NAME.fullmatch(value)):
        yield f"{path}.value", f'Invalid value: "{value}": a valid label must be an empty string or consist of letters'
    effect = taint.get("effect") or ""
    if not effect:
        yield f"{path}.effect", "Required value"
    elif effect not in _EFFECTS:
        supported = ", ".join(f'"{name}"' for name in _EFFECTS)
        yield f"{path}.effect", f'Unsupported value: "{effect}": supported values: {supported}'


def _check_qualified_name(name: str, path: str) -> Iterator[Cause]:
    parts = name.split("/")
    if len(parts) > 2:  # noqa: PLR2004 - a domain and an identifier
        yield path, f'Invalid value: "{name}": must not contain more than one slash'
        return
    if len(parts) > 1:
        yield from _check_subdomain(parts[0], path, _MAX_LABEL)
    identifier = parts[-1]
    if len(identifier) > _MAX_IDENTIFIER:
        yield path, f"Too long: may not be more than {_MAX_IDENTIFIER} bytes"
    if not _C_IDENTIFIER.fullmatch(identifier):
        yield path, f"Invalid value: \"{identifier}\": a valid C identifier must start with alphabetic character or '_'"


def _check_subdomain(text: str, path: str, limit: int = _MAX_SUBDOMAIN) -> Iterator[Cause]:
    if not text:
        yield path, "Required value"
    elif len(text) > limit:
        yield path, f"Too long: may not be more than {limit} bytes"
    elif not _DNS_SUBDOMAIN.fullmatch(text):
        yield path, f'Invalid value: "{text}": {_SUBDOMAIN_TEXT}'
