"""Claims, their templates, pods with claims, and devices with attributes, for the tests of DRA on a cluster."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.cluster import Cluster, build_container, build_pod
from tests.cluster.machine import Machine

DRIVER = "genplug.io"
API = "resource.k8s.io/v1"
DRA_MINOR = 34
"""The first minor version of Kubernetes that has ``resource.k8s.io/v1``."""
EXTENDED_MINOR = 36
"""The first minor version that allocates ``limits`` by DRA without a feature gate."""
TAINTS_MINOR = 36
"""The first minor version whose API server keeps the taints of devices without a feature gate."""


def build_request(resource: str, count: int = 1, *selectors: str, name: str = "device", **fields: Any) -> Any:
    """Return a request of a claim for devices of the class of a resource, with CEL selectors."""
    domain, _, short = resource.partition("/")
    exactly: dict[str, Any] = {"deviceClassName": f"{short}.{domain}", "count": count} | fields
    if selectors:
        exactly["selectors"] = [{"cel": {"expression": selector}} for selector in selectors]
    return {"name": name, "exactly": exactly}


def build_claim_spec(*requests: Any, constraints: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the specification of a claim."""
    devices: dict[str, Any] = {"requests": list(requests)}
    if constraints:
        devices["constraints"] = list(constraints)
    return {"devices": devices}


def build_template(name: str, *requests: Any, constraints: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return a ResourceClaimTemplate."""
    spec = build_claim_spec(*requests, constraints=constraints)
    return _build_object("ResourceClaimTemplate", name, {"spec": spec})


def build_claim(name: str, *requests: Any, constraints: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return a ResourceClaim that pods can share."""
    return _build_object("ResourceClaim", name, build_claim_spec(*requests, constraints=constraints))


def _build_object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def build_claim_container(name: str = "main", command: str = "exec sleep infinity", **claim: str) -> dict[str, Any]:
    """Return a container that uses the claim ``claim`` of its pod, or with ``request`` only one request of it."""
    entry = {"name": "claim"} | claim
    return build_container(name, command) | {"resources": {"claims": [entry]}}


def build_claim_pod(name: str, template: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a pod with a claim of a template.

    The pod has a grace period of a second: without one its object is gone before the kubelet unprepares the claim.
    """
    claims = [{"name": "claim", "resourceClaimTemplateName": template}]
    fields: dict[str, Any] = {"terminationGracePeriodSeconds": 1, "resourceClaims": claims}
    return build_pod(name, *(containers or (build_claim_container(),)), **fields | spec)


def list_slices(cluster: Cluster, driver: str = DRIVER) -> list[dict[str, Any]]:
    """Return the ResourceSlices of a driver."""
    slices: list[dict[str, Any]] = cluster.get("resourceslices", f"--field-selector=spec.driver={driver}")["items"]
    return slices


def list_published(cluster: Cluster, resource: str) -> dict[str, dict[str, Any]]:
    """Return the published devices of a resource by name."""
    return {
        device["name"]: device
        for entry in list_slices(cluster)
        if entry["spec"]["pool"]["name"].endswith(f"/{resource}")
        for device in entry["spec"]["devices"]
    }


def list_allocated(cluster: Cluster) -> dict[str, list[str]]:
    """Return the allocated devices by the name of their claim."""
    return {
        claim["metadata"]["name"]: [result["device"] for result in claim["status"]["allocation"]["devices"]["results"]]
        for claim in cluster.get("resourceclaims")["items"]
        if "allocation" in claim.get("status", {})
    }


def add_numa_devices(machine: Machine, devices: Mapping[int, tuple[str, int]]) -> None:
    """Give device numbers a PCI device in the ``/sys`` of the machine.

    Args:
        machine: The machine.
        devices: Minor number of a character device with the major number 240 -> PCI address and NUMA node.
    """
    root = "/run/fake-devices"
    script = [
        f"mkdir -p {root} && mount -t overlay -o lowerdir={root}:/sys/devices overlay /sys/devices",
        "mount -t tmpfs none /sys/dev/char",
    ]
    for minor, (address, node) in devices.items():
        device = f"pci0000:40/0000:40:01.0/{address}"
        script.insert(0, f"mkdir -p {root}/{device}/thing/thing{minor} && echo {node} > {root}/{device}/numa_node")
        script.append(f"ln -s ../../devices/{device}/thing/thing{minor} /sys/dev/char/240:{minor}")
    machine.run("sh", "-ec", "\n".join(script))


def read_event(cluster: Cluster, pod: str, reason: str) -> str:
    """Return the message of the newest event of a pod with a reason, or an empty text."""
    selector = f"--field-selector=involvedObject.name={pod},reason={reason}"
    events = cluster.get("events", selector)["items"]
    return str(events[-1]["message"]) if events else ""
