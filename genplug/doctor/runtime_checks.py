"""Checks of the container runtime."""

from collections.abc import Iterator

from genplug.doctor.facts import Facts, Unknown, require
from genplug.doctor.findings import Observation, Registry, error, ok, unknown, warning
from genplug.doctor.runtime import normalize_directory

REGISTRY = Registry("runtime")


@REGISTRY.add(
    "container-runtime",
    title="The container runtime and its configuration files are readable.",
    why="The configuration of the runtime decides whether containers get CDI devices.",
)
def check_runtime(facts: Facts) -> Iterator[Observation]:
    """Show the container runtime."""
    runtime = require(facts.runtime)
    for text in runtime.errors:
        yield warning(f"a configuration file of {runtime.name} cannot be read: {text}", "correct the file")
    if not runtime.errors:
        yield ok(f"{runtime.name}, configured by {', '.join(runtime.files) or 'its defaults'}")


@REGISTRY.add(
    "cdi",
    title="The container runtime injects CDI devices from the directories that the agent uses, if the configuration "
    "uses CDI.",
    why="A runtime without CDI ignores CDI devices or refuses the container.",
)
def check_cdi(facts: Facts) -> Iterator[Observation]:
    """Compare the configuration of the runtime with the options of the agent."""
    configuration = facts.configuration
    if isinstance(configuration, Unknown) or not configuration.needs.cdi:
        yield ok("the configuration does not use CDI")
        return
    runtime, settings = require(facts.runtime), facts.machine.settings
    if runtime.has_cdi is False:
        yield error(f"{runtime.name} has 'enable_cdi = false'", "set 'enable_cdi = true', and restart containerd")
        return
    if runtime.has_cdi is None:
        text = f"the configuration of {runtime.name} does not set 'enable_cdi': containerd 1.7 does not inject CDI "
        text += "devices by default, and containerd 2.0 does"
        yield unknown(text, "set 'enable_cdi = true' if containerd is older than 2.0")
    directories = ", ".join(runtime.cdi_dirs)
    own = normalize_directory(settings.cdi_dir)
    if configuration.needs.cdi_files and own not in runtime.cdi_dirs:
        action = f"add {settings.cdi_dir} to 'cdi_spec_dirs' of the runtime, or pass one of them with --cdi-dir"
        yield error(f"{runtime.name} reads CDI files from {directories}, and the agent writes to {own}", action)
    elif tuple(map(normalize_directory, settings.cdi_search_dirs)) != runtime.cdi_dirs:
        searched = ", ".join(settings.cdi_search_dirs)
        action = f"pass --cdi-search-dirs {':'.join(runtime.cdi_dirs)}"
        yield warning(f"{runtime.name} reads CDI files from {directories}, and the agent searches {searched}", action)
    else:
        yield ok(f"{runtime.name} reads CDI files from {directories}")
