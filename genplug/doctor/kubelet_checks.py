"""Checks of the kubelet: its directories, its sockets, its features and other plugins."""

from collections.abc import Iterator

from genplug.doctor.facts import Facts, Needs, Unknown, require
from genplug.doctor.findings import Observation, Registry, error, ok, unknown, warning
from genplug.kubelet.plugin_dir import SOCKET_PREFIX

REGISTRY = Registry("kubelet")
_MAX_SHOWN = 5
_NO_DRA = "the configuration does not use Dynamic Resource Allocation"


@REGISTRY.add(
    "kubelet-directory",
    title="The directory of the device plugin sockets exists, and this process can create sockets in it.",
    why="The agent serves each resource on a socket in this directory.",
)
def check_directory(facts: Facts) -> Iterator[Observation]:
    """Check the directory of the sockets."""
    plugins, path = require(facts.plugins), facts.machine.settings.plugins_dir
    if plugins.error:
        action = (
            "run genplug as root, with the directory of the kubelet mounted read-write at --device-plugins-dir; the "
            "kubelet creates the directory when it starts, and its --root-dir does not move it"
        )
        yield error(plugins.error, action)
    else:
        yield ok(f"{path} is writable")


@REGISTRY.add(
    "kubelet-socket",
    title="The kubelet accepts connections on `kubelet.sock`.",
    why="The agent registers each resource with the kubelet on this socket.",
)
def check_kubelet_socket(facts: Facts) -> Iterator[Observation]:
    """Check the socket for registrations."""
    socket = require(facts.kubelet_socket)
    if socket.error:
        action = "check that the kubelet runs, and that --device-plugins-dir is the directory of its socket"
        yield error(f"{socket.path} {socket.error}", action)
    else:
        yield ok(f"{socket.path} accepts connections")


@REGISTRY.add(
    "pod-resources-socket",
    title="The kubelet accepts connections on the socket of the pod-resources API.",
    why="Without this API the agent does not know which devices are in use: removed resources and aliases wait for it.",
)
def check_pod_resources(facts: Facts) -> Iterator[Observation]:
    """Check the socket of the pod-resources API."""
    socket = require(facts.pod_resources)
    if socket.error:
        action = "set --pod-resources-dir to the directory pod-resources in the --root-dir of the kubelet"
        yield warning(f"{socket.path} {socket.error}", action)
    else:
        yield ok(f"{socket.path} accepts connections")


@REGISTRY.add(
    "kubelet-root-dir",
    title="The directories of the agent are those of the kubelet that runs.",
    why="The --root-dir of a kubelet moves the socket of the pod-resources API, but not the device plugin sockets.",
)
def check_root_dir(facts: Facts) -> Iterator[Observation]:
    """Check ``--kubelet-dir`` against the option of the kubelet process."""
    root_dir, settings = require(facts.kubelet).root_dir, facts.machine.settings
    used = settings.pod_resources.parent
    if not root_dir:
        yield unknown("no kubelet process with --root-dir is visible, so its directory is not known")
    elif str(used) != f"{root_dir.rstrip('/')}/pod-resources":
        action = f"pass --pod-resources-dir {root_dir.rstrip('/')}/pod-resources (in the chart: daemonset.kubeletDir)"
        yield warning(f"the kubelet runs with --root-dir {root_dir}, and the agent uses {used}", action)
    else:
        yield ok(f"the kubelet runs with --root-dir {root_dir}")


@REGISTRY.add(
    "kubelet-features",
    title="The feature gates that genplug needs are not disabled in the configuration file of the kubelet.",
    why="A kubelet without KubeletPodResources does not report the use of devices, without DevicePluginCDIDevices it "
    "does not pass CDI devices to the container runtime, and without DynamicResourceAllocation it has no DRA drivers.",
)
def check_features(facts: Facts) -> Iterator[Observation]:
    """Check the feature gates."""
    kubelet = require(facts.kubelet)
    if not kubelet.config_file:
        yield unknown("the configuration file of the kubelet is not visible")
        return
    configuration = facts.configuration
    needs = Needs() if isinstance(configuration, Unknown) else configuration.needs
    needed = {"DevicePlugins": True, "KubeletPodResources": False, "DevicePluginCDIDevices": needs.cdi}
    needed |= {"DynamicResourceAllocation": True} if needs.dra else {}
    disabled = [name for name in needed if kubelet.features.get(name) is False]
    for name in disabled:
        report = error if needed[name] else warning
        action = f"remove {name} from 'featureGates' in that file, and restart the kubelet"
        yield report(f"{kubelet.config_file} disables the feature gate {name}", action)
    if not disabled:
        yield ok(f"{kubelet.config_file} disables no feature that genplug needs")


@REGISTRY.add(
    "dra-directories",
    title="The directories of the DRA driver and of its CDI files are writable, if the configuration has `serve: dra`.",
    why="The kubelet finds the driver by a socket in plugins_registry, and the driver keeps the records of prepared "
    "claims in plugins/<driver>.",
)
def check_driver_directories(facts: Facts) -> Iterator[Observation]:
    """Check the directories of the driver."""
    if not _has_dra(facts):
        yield ok(_NO_DRA)
        return
    errors = require(facts.driver).directory_errors
    action = (
        "pass the --root-dir of the kubelet with --kubelet-dir, and mount the directories read-write; those of the "
        "kubelet need the path that they have on the host (in the chart: daemonset.kubeletDir and dra.enabled)"
    )
    for text in errors:
        yield error(text, action)
    if not errors:
        settings = facts.machine.settings
        yield ok(f"the driver {settings.dra_driver} can use {settings.kubelet_dir} and {settings.cdi_dir}")


@REGISTRY.add(
    "api-server-account",
    title="The address of the API server, its certificate and a token are readable, if the configuration has "
    "`serve: dra`.",
    why="The agent publishes devices at the API server, and reads from it which devices a claim has got.",
)
def check_account(facts: Facts) -> Iterator[Observation]:
    """Check the service account."""
    if not _has_dra(facts):
        yield ok(_NO_DRA)
        return
    if text := require(facts.driver).account_error:
        action = "run the command in the pod of the agent; in the chart, dra.enabled: always mounts the token"
        yield error(text, action)
    else:
        yield ok(f"{facts.machine.settings.account_dir} has a token for the API server")


def _has_dra(facts: Facts) -> bool:
    return not isinstance(facts.configuration, Unknown) and facts.configuration.needs.dra


@REGISTRY.add(
    "other-plugins",
    title="No other device plugin has registered a resource of the configuration.",
    why="The kubelet uses the plugin that registers a name last, so two plugins replace each other's devices.",
)
def check_other_plugins(facts: Facts) -> Iterator[Observation]:
    """Compare the device IDs of the kubelet's checkpoint with those of the configuration."""
    plugins, registered = require(facts.plugins), require(facts.registered)
    configuration = require(facts.configuration)
    others = [name for name in plugins.sockets if name != "kubelet.sock" and not name.startswith(SOCKET_PREFIX)]
    seen = ", ".join(others[:_MAX_SHOWN]) + (" and more" if len(others) > _MAX_SHOWN else "") or "none"
    foreign = [
        resource.name
        for resource in configuration.resources
        if (ids := registered.get(resource.name)) and resource.ids and ids.isdisjoint(resource.ids)
    ]
    if foreign:
        action = (
            "end the other plugin, or rename the resource; if an agent with another configuration registered it, the "
            "IDs change when the agent starts"
        )
        found = f"the kubelet has other device IDs for {', '.join(foreign)}; sockets of other plugins: {seen}"
        yield warning(found, action)
    else:
        served = (
            "an agent of genplug serves the directory" if plugins.is_locked else "no agent serves the directory now"
        )
        yield ok(f"{served}; sockets of other plugins: {seen}")
