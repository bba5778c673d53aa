"""The kubelet's checks of a Register request, texts included (contract 2.2)."""

import json
import re

from genplug.kubelet.api.services import API_VERSION

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_QUOTA_PREFIX = "requests."
_LONGEST_SUBDOMAIN = 253
_LONGEST_NAME = 63


def registration_error(version: str, resource: str) -> str:
    """Return why the kubelet refuses a registration, empty if it does not."""
    if version != API_VERSION:
        return (
            f"requested API version {json.dumps(version)} is not supported by kubelet. "
            f'Supported version is ["{API_VERSION}"]'
        )
    if not is_extended_resource_name(resource):
        return f"the ResourceName {json.dumps(resource)} is invalid"
    return ""


def is_extended_resource_name(resource: str) -> bool:
    """Say whether Kubernetes takes a name for a resource of a device plugin (``IsExtendedResourceName``)."""
    if "kubernetes.io/" in resource or resource.startswith(_QUOTA_PREFIX) or resource.count("/") != 1:
        return False
    prefix, name = f"{_QUOTA_PREFIX}{resource}".split("/")
    return (
        len(prefix) <= _LONGEST_SUBDOMAIN
        and len(name) <= _LONGEST_NAME
        and _SUBDOMAIN.fullmatch(prefix) is not None
        and _NAME.fullmatch(name) is not None
    )
