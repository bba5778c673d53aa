"""Builds the plan that ``genplug diff`` compares: the devices of a configuration on a node, with their edits."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import Grant
from genplug.allocation.resource_state import ResourceState
from genplug.cli.plan import build_states
from genplug.comparison.plan import Plan, PlannedDevice, PlannedResource, describe_edits
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, Inventory
from genplug.health.presence import NO_PROBE_RESULTS
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.model import Config


def plan_config(config: Config) -> Plan:
    """Return the plan of a configuration without a node: its resources and their settings."""
    resources = {
        name: PlannedResource(name, settings, tuple(config.resources[name].aliases) if name in config.resources else ())
        for name, settings in _read_settings(config).items()
    }
    return Plan(resources, has_node=False, remarks=dict(_remarks(config.warnings)))


def plan_node(config: Config, host: Host) -> Plan:
    """Return the plan of a configuration on a node.

    Raises:
        HangError: a file operation on the node does not return.
    """
    inventory = discover(config, host)
    settings = _read_settings(config)
    resources = {
        name: _plan_resource(name, state, inventory, settings)
        for name, state in build_states(inventory, host, NO_PROBE_RESULTS).items()
    }
    conflicts = {f"conflict {conflict.resource} {conflict.path}": conflict.message for conflict in inventory.conflicts}
    remarks = dict(_remarks((*config.warnings, *inventory.warnings)))
    return Plan(resources, remarks=remarks | conflicts)


def _read_settings(config: Config) -> dict[str, Any]:
    return dict(json.loads(config.content).get("resources") or {}) if config.content else {}


def _remarks(warnings: Iterable[Diagnostic]) -> Iterator[tuple[str, str]]:
    """Yield a key and the text of each warning; the location is not in the key, because the files differ."""
    for warning in warnings:
        key = f"{warning.code.value} {warning.key_path} {warning.message}"
        yield key, f"{warning.location}: {warning.severity.value}[{warning.code.value}]: {warning.message}"


def _plan_resource(
    name: str, state: ResourceState, inventory: Inventory, settings: Mapping[str, Any]
) -> PlannedResource:
    offer = state.offer
    devices = inventory.devices.get(name, ())
    shared = Counter(number for device in devices for number in {str(node.info.numbers) for node in device.nodes})
    grants: dict[str, Grant] = {}
    for grant in offer.grants.values():
        for health in grant.devices:
            # Of a pool of tokens, each device is compared alone.
            grants.setdefault(health.device.id, replace(grant, source=health))
    configured = offer.resource.configured_name
    return PlannedResource(
        name=name,
        settings=settings.get(configured, {}),
        aliases=tuple(offer.resource.aliases),
        devices={device.id: _plan_device(device, grants.get(device.id), state, shared) for device in devices},
        grants={grant.id: tuple(health.device.id for health in grant.devices) for grant in offer.grants.values()},
        note=offer.omission or ("" if devices else "no device of the node matches"),
    )


def _plan_device(device: Device, grant: Grant | None, state: ResourceState, shared: Mapping[str, int]) -> PlannedDevice:
    hardware = {identity if isinstance(identity, str) else _describe(identity) for identity in device.identities}
    # A node that several devices have, for example a control device, does not identify any of them.
    hardware |= {_describe(node.info.numbers) for node in device.nodes if shared[str(node.info.numbers)] == 1}
    problem, edits = "; ".join(device.faults) or state.offer.omission, {}
    if grant is not None:
        (health,) = grant.devices
        problem = health.verdict.reason
        offer = replace(state.offer, grants={grant.id: replace(grant, healthy=health.verdict.healthy, reason=problem)})
        if health.verdict.healthy:
            try:
                edits = describe_edits(allocate_edits(offer, [grant.id], state.host))
            except AllocationError as error:
                problem = str(error)
    return PlannedDevice(device.id, device.candidates, frozenset(hardware), edits, problem)


def _describe(numbers: tuple[object, int, int]) -> str:
    kind, major, minor = numbers
    return f"{kind} {major}:{minor}"
