"""The kubelet's checks of a Register request, with its messages (docs/internals/kubelet-contract.md §2.2)."""

import json
import re

from genplug.kubelet.api.services import API_VERSION

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_QUOTA_PREFIX = "requests."
_MAX_SUBDOMAIN_CHARACTERS = 253
_MAX_NAME_CHARACTERS = 63


def registration_error(version: str, resource: str) -> str:
    """Return the message with which the kubelet refuses a registration, empty if it accepts it."""
    if version != API_VERSION:
        return (
            f"requested API version {json.dumps(version)} is not supported by kubelet. "
            f'Supported version is ["{API_VERSION}"]'
        )
    if not is_extended_resource_name(resource):
        return f"the ResourceName {json.dumps(resource)} is invalid"
    return ""


def is_extended_resource_name(resource: str) -> bool:
    """Return whether Kubernetes accepts a name for a resource of a device plugin (``IsExtendedResourceName``)."""
    if "kubernetes.io/" in resource or resource.startswith(_QUOTA_PREFIX) or resource.count("/") != 1:
        return False
    prefix, name = f"{_QUOTA_PREFIX}{resource}".split("/")
    return (
        len(prefix) <= _MAX_SUBDOMAIN_CHARACTERS
        and len(name) <= _MAX_NAME_CHARACTERS
        and _SUBDOMAIN.fullmatch(prefix) is not None
        and _NAME.fullmatch(name) is not None
    )
