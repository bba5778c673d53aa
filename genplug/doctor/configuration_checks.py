"""Checks of the configuration against the machine."""

from collections.abc import Iterator

from genplug.doctor.facts import Configuration, Facts, UnknownFactError, require
from genplug.doctor.findings import Observation, Registry, error, ok, warning

REGISTRY = Registry("configuration")


def _require_valid(facts: Facts) -> Configuration:
    configuration = require(facts.configuration)
    if configuration.errors:
        raise UnknownFactError("the configuration is invalid")
    return configuration


@REGISTRY.add(
    "configuration",
    title="The configuration and the policy are valid.",
    why="The agent offers nothing before its first valid configuration.",
)
def check_configuration(facts: Facts) -> Iterator[Observation]:
    """Check the errors and warnings of the configuration."""
    configuration = require(facts.configuration)
    for text in configuration.errors:
        yield error(text, "run 'genplug validate' for the lines and hints")
    for text in configuration.warnings:
        yield warning(text, "run 'genplug validate' for the lines and hints")
    if not configuration.errors and not configuration.warnings:
        yield ok(f"valid; resources: {len(configuration.resources)}")


@REGISTRY.add(
    "scan",
    title="The scan of the devices does not hang.",
    why="A device whose file does not respond keeps its last known state.",
)
def check_scan(facts: Facts) -> Iterator[Observation]:
    """Check for operations that hang."""
    configuration = _require_valid(facts)
    for text in configuration.stalls:
        yield error(text, "reset the device, or restore the file system")
    if not configuration.stalls:
        yield ok("the scan has finished")


@REGISTRY.add(
    "devices",
    title="Each resource has a device.",
    why="The scheduler places no pod on a node without devices of the resource.",
)
def check_devices(facts: Facts) -> Iterator[Observation]:
    """Check for resources without devices."""
    configuration = _require_valid(facts)
    empty = [resource for resource in configuration.resources if not resource.devices]
    for resource in empty:
        reason = f": {resource.reasons[0]}" if resource.reasons else ""
        yield warning(
            f"{resource.name} has no device{reason}", "run 'genplug plan --explain' for the reason of each path"
        )
    if not empty:
        total = sum(resource.devices for resource in configuration.resources)
        yield ok(f"resources: {len(configuration.resources)}, devices: {total}")


@REGISTRY.add(
    "expected-devices",
    title="Each resource has as many healthy devices as `expect.min` requires.",
    why="The configuration states how many devices the node must have.",
)
def check_expected(facts: Facts) -> Iterator[Observation]:
    """Compare the healthy devices with the expected number; probes are not run."""
    configuration = _require_valid(facts)
    expecting = [resource for resource in configuration.resources if resource.expected is not None]
    short = [resource for resource in expecting if resource.healthy < (resource.expected or 0)]
    for resource in short:
        reason = f": {resource.reasons[0]}" if resource.reasons else ""
        text = f"{resource.name} has {resource.healthy} of {resource.expected} expected healthy devices{reason}"
        yield error(text, "check the hardware and its driver, or correct expect.min")
    if not short:
        yield ok(f"resources with expect.min: {len(expecting)}, each has enough devices")


@REGISTRY.add(
    "programs",
    title="The programs of `exec` probes and of `preStart` exist and are executable.",
    why="A probe without its program has no result, and an allocation without its `preStart` program fails.",
)
def check_programs(facts: Facts) -> Iterator[Observation]:
    """Check the programs."""
    configuration = _require_valid(facts)
    for text in configuration.program_errors:
        yield error(text, "install the program in the image of the agent, or correct the path")
    if facts.machine.is_archive and configuration.needs.programs:
        raise UnknownFactError("an archive of 'genplug capture' has no programs")
    if not configuration.program_errors:
        yield ok(f"programs: {len(configuration.needs.programs)}, each is executable")
