"""The documents of ``genplug plan -o json``, with and without ``--allocate``. ``schemas/`` describes them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.cdi_spec import spec_text
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import Grant
from genplug.allocation.resource_state import ResourceState
from genplug.cli.diagnostic_formats import build_problem
from genplug.cli.output import print_message
from genplug.hardware.explain import CandidateExplanation
from genplug.hardware.inventory import DeviceNode, Inventory
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.model import Serve
from genplug.spec.names import DRIVER_DOMAIN


def build_plan_document(
    states: Mapping[str, ResourceState],
    inventory: Inventory,
    explanations: Sequence[CandidateExplanation] | None,
    warnings: Sequence[Diagnostic] = (),
    driver: str = DRIVER_DOMAIN,
) -> dict[str, Any]:
    """Return the document of the plan, with the explanations if there are any.

    ``driver`` is the name of the driver of Dynamic Resource Allocation.
    """
    document = {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Plan",
        "resources": [_build_resource(name, state, inventory, driver) for name, state in states.items()],
        "conflicts": [conflict.message for conflict in inventory.conflicts],
        "warnings": [build_problem(warning) for warning in warnings],
    }
    if explanations is not None:
        document["explanations"] = [_build_explanation(explanation) for explanation in explanations]
    return document


def _build_resource(name: str, state: ResourceState, inventory: Inventory, driver: str) -> dict[str, Any]:
    resource = state.offer.resource
    return {
        "name": name,
        "location": str(resource.location),
        "serve": resource.serve.value,
        "devices": [_build_grant(grant) for grant in state.offer.grants.values()],
        "considered": [
            {
                "path": outcome.path,
                "device": outcome.device,
                "reason": outcome.reason,
                "location": str(outcome.location),
            }
            for outcome in inventory.outcomes
            if outcome.resource in {name, resource.configured_name}
        ],
        "published": _build_published(state, driver),
    }


def _build_published(state: ResourceState, driver: str) -> dict[str, Any] | None:
    if state.offer.resource.serve is not Serve.DRA:
        return None
    # Most configurations do not need the module.
    from genplug.cli.plan_published import build_published  # noqa: PLC0415

    return build_published(state, driver)


def _build_grant(grant: Grant) -> dict[str, Any]:
    devices = [health.device for health in grant.devices]
    return {
        "id": grant.id,
        "healthy": grant.healthy,
        "reason": grant.reason,
        "paths": [path for device in devices for path in device.candidates],
        "nodes": [_build_node(node) for device in devices for node in device.nodes],
        "companions": [_build_node(node) for device in devices for node in device.companions],
    }


def _build_node(node: DeviceNode) -> dict[str, str]:
    return {
        "path": node.path,
        "resolved": node.info.resolved,
        "containerPath": node.container_path,
        "permissions": node.permissions,
        "numbers": node.info.describe_numbers(),
    }


def _build_explanation(explanation: CandidateExplanation) -> dict[str, Any]:
    return {
        "path": explanation.path,
        "resource": explanation.resource,
        "location": str(explanation.location),
        "foundBy": explanation.found_by,
        "device": explanation.device,
        "reason": explanation.reason,
        "checks": [
            {"condition": check.condition, "passed": check.passed, "values": list(check.values), "file": check.origin}
            for check in explanation.checks
        ],
        "attributes": [
            {"name": attribute.name, "values": list(attribute.values), "file": attribute.origin}
            for attribute in explanation.attributes
        ],
    }


def build_allocation_document(
    states: Mapping[str, ResourceState], requests: Sequence[tuple[str, int]]
) -> tuple[dict[str, Any], int]:
    """Return the document of ``--allocate``, and the exit code."""
    containers, code = [], 0
    for resource, count in requests:
        container: dict[str, Any] = {"resource": resource}
        try:
            container |= _allocate(states, resource, count)
        except (AllocationError, LookupError) as error:
            container["refused"] = str(error.args[0])
            print_message("plan", f"{resource}={count}: {error.args[0]}")
            code = 1
        containers.append(container)
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Allocation", "containers": containers}, code


def _allocate(states: Mapping[str, ResourceState], resource: str, count: int) -> dict[str, Any]:
    """Return what a container would receive; the keys are those of ContainerAllocateResponse, in camel case.

    Raises:
        LookupError: there is no such resource, or it does not have enough healthy devices.
        AllocationError: the allocation is refused.
    """
    if resource not in states:
        raise LookupError(f"there is no resource {resource!r}; the configuration has {', '.join(states) or 'none'}")
    state = states[resource]
    healthy = [device.id for device in state.listed if device.healthy]
    if count > len(healthy):
        total = len(state.listed)
        if count > total:
            raise LookupError(
                f"requested {count}, but the resource offers {total} on this node, of which {len(healthy)} are healthy"
            )
        raise LookupError(
            f"requested {count}, but only {len(healthy)} of {total} devices are healthy; "
            "'genplug plan' without --allocate shows the reasons"
        )
    ids = state.choose_preferred(healthy, (), count)
    edits = state.allocate(ids)
    return {
        "ids": list(ids),
        "envs": dict(edits.env),
        "mounts": [
            {"containerPath": mount.container_path, "hostPath": mount.host_path, "readOnly": mount.read_only}
            for mount in edits.mounts
        ],
        "devices": [
            {"containerPath": node.container_path, "hostPath": node.host_path, "permissions": node.permissions}
            for node in edits.nodes
        ],
        "annotations": dict(edits.annotations),
        "cdiDevices": list(edits.cdi_devices),
        **_build_cdi_spec(state, ids),
    }


def _build_cdi_spec(state: ResourceState, ids: Sequence[str]) -> dict[str, Any]:
    """Return the CDI file from which the container runtime gets device nodes and mounts; nothing without one."""
    if not state.offer.resource.allocate.injects_by_cdi:
        return {}
    edits = {grant_id: allocate_edits(state.offer, [grant_id], state.host) for grant_id in ids}
    text = spec_text(state.offer.resource.name, edits)
    return {"cdiSpec": json.loads(text)} if text is not None else {}
