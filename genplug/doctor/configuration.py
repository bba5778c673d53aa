"""Reads the configuration and discovers its devices, to compare what it needs with what the machine has."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from genplug.allocation.offer import build_offer
from genplug.config.diagnostics import ConfigInvalidError, summarize_diagnostic
from genplug.config.load import load
from genplug.doctor.facts import Configuration, ConfiguredResource, Machine, Needs, UnknownFactError
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inventory import Inventory
from genplug.health.binding import bind_probes
from genplug.health.presence import evaluate_health
from genplug.health.probe_kind import Effect, EventStream
from genplug.health.probes import kind_of
from genplug.health.probes.exec import ExecCheck
from genplug.observe.status_builder import collect_notes
from genplug.spec.limits import MAX_SCAN_SECONDS
from genplug.spec.model import Config, Serve

MAX_ERRORS = 3
"""Errors of a configuration that a finding contains; ``genplug validate`` prints all."""


def read_configuration(machine: Machine, paths: HungPaths) -> Configuration:
    """Return the configuration with the devices that it has on this machine.

    ``paths`` records the file operations, so that the caller can name an operation that hangs.

    Raises:
        UnknownFactError: there is no configuration.
    """
    settings = machine.settings
    if not settings.config:
        raise UnknownFactError("no configuration was given; pass its files or directories with --config")
    try:
        config = load(settings.config, settings.node_name, settings.policy, driver=settings.dra_driver).config
    except ConfigInvalidError as error:
        texts = tuple(map(summarize_diagnostic, error.diagnostics[:MAX_ERRORS]))
        more = len(error.diagnostics) - MAX_ERRORS
        return Configuration((*texts, f"and {more} more errors") if more > 0 else texts)
    host = Host.at(
        settings.root, node_name=settings.node_name, recorder=paths.record, cdi_dirs=settings.cdi_search_dirs
    )
    paths.begin(MAX_SCAN_SECONDS)
    inventory = discover(config, host)
    return Configuration(
        warnings=tuple(map(summarize_diagnostic, (*config.warnings, *inventory.warnings))),
        resources=tuple(_list_resources(config, inventory)),
        stalls=tuple(f"{stall.resource}: {stall.reason}" for stall in inventory.stalls),
        program_errors=() if machine.is_archive else tuple(_find_program_errors(config)),
        needs=_find_needs(config, inventory, host),
    )


def _list_resources(config: Config, inventory: Inventory) -> Iterator[ConfiguredResource]:
    health = evaluate_health(inventory, None, {}, time.monotonic())
    notes = collect_notes(inventory, health)
    named: set[str] = set()
    for name, resource in inventory.resources.items():
        named.add(resource.configured_name)
        offer = build_offer(resource, health.devices.get(name, ()))
        reasons = (*(grant.reason for grant in offer.grants.values() if grant.reason), *notes.get(name, ()))
        if resource.configured_name != name:
            reasons += notes.get(resource.configured_name, ())
        yield ConfiguredResource(
            name,
            devices=len(inventory.devices.get(name, ())),
            healthy=offer.healthy_devices,
            expected=resource.expected,
            ids=frozenset(offer.grants),
            reasons=tuple(dict.fromkeys(reasons)),
        )
    # A template of a name without devices has no resource.
    for name, resource in config.resources.items():
        if name not in named:
            yield ConfiguredResource(name, 0, 0, resource.expected, reasons=notes.get(name, ()))


def _find_needs(config: Config, inventory: Inventory, host: Host) -> Needs:
    resources = config.resources.values()
    has_dra = any(resource.serve is Serve.DRA for resource in resources)
    kinds = [kind_of(probe.check) for resource in resources for probe in resource.health.probes]
    bound = [
        probe
        for name, devices in inventory.devices.items()
        for probe in bind_probes(inventory.resources[name], devices)
        if probe.kind.polling is not None
    ]
    calls = sum(probe.is_call for probe in bound)
    return Needs(
        kernel_log=any(kind.listening and kind.listening.stream is EventStream.KERNEL_LOG for kind in kinds),
        open_probes=any(kind.polling and kind.polling.effect is Effect.OPEN for kind in kinds),
        cdi=has_dra or any(item.allocate.injects_by_cdi or item.allocate.cdi_devices for item in resources),
        cdi_files=has_dra or any(resource.allocate.injects_by_cdi for resource in resources),
        dra=has_dra,
        programs=tuple(dict.fromkeys(_list_programs(config))),
        read_probes=len(bound) - calls,
        call_probes=calls,
        resource_names=sum(1 + len(resource.aliases) for resource in inventory.resources.values()),
        directories=len(host.select_with_inotify(inventory.directories | inventory.directories_of_attributes)),
        devices=sum(map(len, inventory.devices.values())),
    )


def _list_programs(config: Config) -> Iterator[str]:
    """Yield the paths of the programs that probes and ``preStart`` run; a path cannot have attributes."""
    for resource in config.resources.values():
        commands = [probe.check.command for probe in resource.health.probes if isinstance(probe.check, ExecCheck)]
        if resource.pre_start is not None:
            commands.append(resource.pre_start.command)
        for command in commands:
            if not command[0].names:
                yield command[0].render({})


def _find_program_errors(config: Config) -> Iterator[str]:
    for program in dict.fromkeys(_list_programs(config)):
        if not Path(program).exists():
            yield f"{program} does not exist"
        elif not os.access(program, os.X_OK):
            yield f"{program} may not be executed by this user"
