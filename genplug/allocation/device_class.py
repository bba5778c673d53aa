"""DeviceClasses for the resources that Dynamic Resource Allocation (DRA) serves.

Pure. A class selects the published devices of a resource, and ``extendedResourceName`` lets pods request them by the
name of the resource or of an alias, in ``limits`` (Kubernetes 1.36 and later by default).
"""

import re
from collections.abc import Iterator
from typing import Any

from genplug.spec.model import Resource
from genplug.spec.names import DRIVER_DOMAIN

_NOT_IN_NAMES = re.compile(r"[^-a-z0-9.]+")


def build_device_classes(resource: Resource, driver: str = DRIVER_DOMAIN) -> Iterator[dict[str, Any]]:
    """Yield the DeviceClass of a resource, and one for each of its aliases.

    An administrator writes them: a driver has no rights to create cluster-wide objects.
    """
    expression = f'device.driver == "{driver}" && device.attributes["{driver}"].resource == "{resource.name}"'
    for name in (resource.name, *resource.aliases):
        yield {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": device_class_name(name)},
            "spec": {"selectors": [{"cel": {"expression": expression}}], "extendedResourceName": name},
        }


def device_class_name(resource: str) -> str:
    """Return the name of the DeviceClass of a resource: ``vendor.example/thing`` has ``thing.vendor.example``."""
    domain, _, name = resource.partition("/")
    labels = (label.strip("-") for label in _NOT_IN_NAMES.sub("-", f"{name}.{domain}".lower()).split("."))
    return ".".join(label for label in labels if label)
