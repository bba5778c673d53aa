"""Converts configurations of the NVIDIA device plugin: its config.yaml, also in a ConfigMap or in values of its chart.

The keys and their meaning are those of ``api/config/v1`` of github.com/NVIDIA/k8s-device-plugin. The devices and their
health probes are those of the recipes nvidia-gpu, nvidia-gpu-shared and nvidia-mig.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, ScalarNode
from genplug.convert.conversion import Body, Draft, Kind, Report
from genplug.convert.recipe_bodies import read_recipe
from genplug.convert.section import Section
from genplug.convert.shares import MAX_REPLICAS, set_replicas
from genplug.convert.sources import Option, Source, parse_nested
from genplug.spec.diagnostic import ErrorCode

_GPU = "nvidia.com/gpu"
_MIG = "nvidia.com/mig"
_PREFIX = "nvidia.com/"
_SHARED = ".shared"
_VISIBLE = "NVIDIA_VISIBLE_DEVICES"
_MIG_STRATEGIES = ("none", "single", "mixed")
_LIST_STRATEGIES = ("envvar", "volume-mounts", "cdi-annotations", "cdi-cri")
_ID_STRATEGIES = ("uuid", "index")
_SWITCHES = frozenset({"version"})
_KEYS = ("flags", "sharing", "resources", "imex")

_FLAG_NOTES = {
    "failOnInitError": "genplug waits for devices, and offers them when they appear",
    "useNodeFeatureAPI": "it concerns GPU Feature Discovery, which can stay",
    "mpsRoot": "it concerns MPS",
}
_ROOTS = {
    "nvidiaDriverRoot": "the root directory of the driver",
    "nvidiaDevRoot": "the root directory of the device nodes",
}
_PLUGIN_NOTES = {
    "cdiAnnotationPrefix": "genplug puts the names of CDI devices into the field of the device plugin API",
    "nvidiaCTKPath": "genplug writes no hooks of the NVIDIA Container Toolkit",
    "containerDriverRoot": "genplug does not use the library of the driver",
}
_FEATURES: dict[str, tuple[str, Any]] = {
    "gdsEnabled": ("NVIDIA_GDS", {"path": "/dev/nvidia-fs*", "optional": True}),
    "mofedEnabled": ("NVIDIA_MOFED", {"path": "/dev/infiniband/uverbs*", "optional": True}),
    "gdrcopyEnabled": ("NVIDIA_GDRCOPY", {"path": "/dev/gdrdrv", "optional": True}),
}
_OPTIONS = {
    "mig-strategy": "flags.migStrategy",
    "fail-on-init-error": "flags.failOnInitError",
    "nvidia-driver-root": "flags.nvidiaDriverRoot",
    "driver-root": "flags.nvidiaDriverRoot",
    "nvidia-dev-root": "flags.nvidiaDevRoot",
    "dev-root": "flags.nvidiaDevRoot",
    "gdrcopy-enabled": "flags.gdrcopyEnabled",
    "gds-enabled": "flags.gdsEnabled",
    "mofed-enabled": "flags.mofedEnabled",
    "mps-root": "flags.mpsRoot",
    "use-node-feature-api": "flags.useNodeFeatureAPI",
    "device-discovery-strategy": "flags.deviceDiscoveryStrategy",
    "pass-device-specs": "flags.plugin.passDeviceSpecs",
    "device-list-strategy": "flags.plugin.deviceListStrategy",
    "device-id-strategy": "flags.plugin.deviceIDStrategy",
    "cdi-annotation-prefix": "flags.plugin.cdiAnnotationPrefix",
    "nvidia-ctk-path": "flags.plugin.nvidiaCTKPath",
    "nvidia-cdi-hook-path": "flags.plugin.nvidiaCTKPath",
    "container-driver-root": "flags.plugin.containerDriverRoot",
    "shared-devices-allocation-policy": "flags.plugin.sharedDevicesAllocationPolicy",
    "imex-channel-ids": "imex.channelIDs",
    "imex-required": "imex.required",
}
"""The key of the file by the name of the option; an environment variable has the name of the option in upper case."""


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    trees = list(_find_configurations(source, report))
    options = [option for program in source.programs if _is_plugin(program.image) for option in program.options()]
    variables = [
        Option(name.text.lower().replace("_", "-"), name.location, value)
        for program in source.programs
        if _is_plugin(program.image)
        for name, value in program.environment
    ]
    arguments = [option for option in (*variables, *options) if option.name in _OPTIONS]
    if not trees and (arguments or any(_is_plugin(program.image) for program in source.programs)):
        trees = [_tree_of_options(arguments, source)]
    for number, tree in enumerate(trees):
        if number:
            message = "the file has several configurations; this one is left out"
            action = "convert each configuration separately, and write each into a pool of genplug's chart"
            report.remark(Kind.UNSUPPORTED, tree.location, message, action)
        else:
            _convert_file(Section(tree, report), report)


def _is_plugin(image: str) -> bool:
    return "k8s-device-plugin" in image and "rocm" not in image


def _find_configurations(source: Source, report: Report) -> Iterator[MapNode]:
    for tree in source.trees:
        if not isinstance(tree, MapNode):
            continue
        config = tree.get("config")
        map_ = config.get("map") if isinstance(config, MapNode) else None
        if isinstance(map_, MapNode):
            for entry in map_.entries.values():
                nested = parse_nested(entry.value, report.diagnostics) if isinstance(entry.value, ScalarNode) else None
                if isinstance(nested, MapNode):
                    yield nested
        elif not {*_KEYS}.isdisjoint(tree.entries) or "version" in tree.entries:
            yield tree


def _tree_of_options(options: list[Option], source: Source) -> MapNode:
    """Return the tree of a configuration file that has the values of options."""
    root: dict[str, Any] = {}
    for option in options:
        *parents, key = _OPTIONS[option.name].split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        text = option.text
        scalar = option.value or ScalarNode(option.location, text, text, None)
        is_list = key in ("deviceListStrategy", "channelIDs")
        words = tuple(ScalarNode(scalar.location, word, word, None) for word in text.split(",") if word)
        node[key] = MapEntry(option.location, ListNode(scalar.location, words) if is_list else scalar)
    return _build_tree(root, source)


def _build_tree(value: dict[str, Any], source: Source) -> MapNode:
    entries = {}
    for key, item in value.items():
        entry = MapEntry(source.start, _build_tree(item, source)) if isinstance(item, dict) else item
        entries[key] = entry
    return MapNode(source.start, entries)


class _Sharing(Struct, frozen=True):
    """How a resource of the plugin is shared."""

    section: Section
    replicas: int
    name: str
    is_limited: bool
    is_mps: bool


def _convert_file(file: Section, report: Report) -> None:
    version = file.text("version", "v1")
    if version != "v1":
        file.error("version", f"expected version v1, found {version!r}")
    sharing = _read_sharing(file)
    flags = file.section("flags")
    strategy = _read_strategy(flags, "migStrategy", _MIG_STRATEGIES)
    drafts = _build_drafts(file, flags, strategy, sharing, report)
    if flags is not None:
        _convert_flags(flags, drafts)
    _convert_imex(file, drafts)
    resources = file.section("resources")
    if resources is not None:
        message = "the plugin reads 'resources' and ignores it"
        file.unsupported("resources", message, "write a resource with a condition for each model of a card")
    file.finish()
    for draft in drafts:
        report.add(draft)


def _read_strategy(flags: Section | None, key: str, known: tuple[str, ...]) -> str:
    value = flags.text(key) if flags is not None else ""
    if flags is not None and value not in ("", *known):
        flags.error(key, f"expected {', '.join(known[:-1])} or {known[-1]}, found {value!r}")
    return value or known[0]


def _read_sharing(file: Section) -> dict[str, _Sharing]:
    """Return how each resource of the plugin is shared, by its name."""
    sharing = file.section("sharing")
    found: dict[str, _Sharing] = {}
    if sharing is None:
        return found
    for key in ("timeSlicing", "mps"):
        section = sharing.section(key)
        if section is None:
            continue
        is_renamed = section.flag("renameByDefault")
        is_limited = section.flag("failRequestsGreaterThanOne", default=key == "mps")
        resources = section.sections("resources")
        if not resources:
            section.error("resources", "expected at least one resource", code=ErrorCode.MISSING_KEY)
        for resource in resources:
            name = resource.required("name")
            name = name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"
            replicas = resource.number("replicas", 0)
            if replicas < 2:  # noqa: PLR2004 - the plugin refuses a smaller number
                resource.error("replicas", f"expected at least 2 replicas, found {replicas}")
            _remark_ignored(resource)
            resource.finish()
            target = f"{name}{_SHARED}" if is_renamed else name
            found[name] = _Sharing(resource, replicas, target, is_limited, key == "mps")
        section.finish()
    sharing.finish()
    return found


def _remark_ignored(resource: Section) -> None:
    if resource.has("rename"):
        message = "the plugin ignores 'rename', and this configuration has the name that the plugin offers"
        resource.note("rename", message, "change the key of the resource for another name")
    devices = resource.node("devices")
    resource.read["rename"] = None
    if devices is not None and not (isinstance(devices, ScalarNode) and devices.text == "all"):
        message = "the plugin ignores 'devices' and shares all cards, and so does this configuration"
        resource.unsupported("devices", message, "add 'where: {index: [...]}' or 'where: {uuid: [...]}'")


def _build_drafts(
    file: Section, flags: Section | None, strategy: str, sharing: dict[str, _Sharing], report: Report
) -> list[Draft]:
    location = flags.locate("migStrategy") if flags is not None else file.location
    drafts = []
    if strategy != "single":
        drafts.append(_build_gpu(location, sharing.pop(_GPU, None)))
    if strategy != "none":
        draft = Draft(_GPU if strategy == "single" else _MIG, location, read_recipe("nvidia-mig")[_MIG])
        report.allow("mounts", "allow", "/usr/local/nvidia")
        report.allow("env", "allow", f"{_VISIBLE}=void")
        shared = [sharing.pop(name) for name in list(sharing) if strategy == "mixed" or name == _GPU]
        if len(shared) > 1:
            message = "the resources of several MIG profiles have separate numbers of replicas"
            shared[1].section.unsupported("replicas", message, f"all slices have {shared[0].replicas}", draft=draft)
        if shared:
            _share(draft, shared[0])
        if strategy == "mixed":
            message = "the plugin has a resource for each MIG profile, and the driver has no file with the profile"
            action = "rename the resource, for example nvidia.com/mig-1g.10gb, where all slices have one profile"
        else:
            message = "on nodes without slices, the plugin offers whole cards under this name"
            action = "use the recipe nvidia-gpu for pools of nodes without MIG"
        _at_flags(flags, "migStrategy", message, action, draft)
        drafts.append(draft)
    for name, left in sharing.items():
        message = f"{name} does not exist with migStrategy {strategy}"
        left.section.unsupported("name", message, "remove the entry, or change the strategy")
    return drafts


def _at_flags(flags: Section | None, key: str, message: str, action: str, draft: Draft) -> None:
    if flags is not None:
        flags.unsupported(key, message, action, draft=draft)


def _build_gpu(location: Any, shared: _Sharing | None) -> Draft:  # noqa: ANN401 - a location
    body = read_recipe("nvidia-gpu")[_GPU]
    draft = Draft(_GPU, location, body)
    if shared is None:
        # The plugin lists the UUID as the ID, so that running pods keep their cards.
        for source in body["devices"]:
            source["verbatimId"] = True
        # The NVIDIA runtime adds the libraries of the driver, as before.
        body["allocate"].pop("mounts", None)
        return draft
    draft.body = read_recipe("nvidia-gpu-shared")["nvidia.com/gpu.shared"]
    draft.body.pop("share", None)
    _share(draft, shared)
    return draft


def _share(draft: Draft, shared: _Sharing) -> None:
    if shared.name != _GPU and draft.name == _GPU:
        draft.name = shared.name
    draft.body.pop("replicas", None)
    set_replicas(draft, min(shared.replicas, MAX_REPLICAS * 10), shared.section, "replicas")
    if shared.is_limited:
        draft.body["share"] = {"maxPerContainer": 1}
    draft.body["preferredAllocation"] = {"policy": "spread"}
    if shared.is_mps:
        message = "genplug does not start the MPS daemon, and does not limit the memory and the threads of a client"
        action = "the replicas share a card by time-slicing; keep NVIDIA's plugin for MPS"
        shared.section.unsupported("replicas", message, action, draft=draft, at=("replicas",))


def _convert_flags(flags: Section, drafts: list[Draft]) -> None:
    flags.notes(_FLAG_NOTES)
    for key, meaning in _ROOTS.items():
        root = flags.text(key)
        if root not in ("", "/"):
            message = f"genplug has no key for {meaning}, {root}"
            action = "add 'allocate.mounts' with the libraries, and change the globs of the device nodes"
            flags.unsupported(key, message, action, draft=drafts[0])
    for key, (variable, node) in _FEATURES.items():
        if not flags.flag(key):
            continue
        flags.report.allow("env", "allow", f"{variable}=enabled")
        for draft in drafts:
            draft.allocate("env")[variable] = "enabled"
            for source in draft.body["devices"]:
                source.setdefault("with", []).append(dict(node))
    if (discovery := flags.text("deviceDiscoveryStrategy")) not in ("", "auto", "nvml"):
        message = f"genplug reads the files of the driver, and not {discovery}"
        action = "keep NVIDIA's plugin on Tegra and WSL"
        flags.unsupported("deviceDiscoveryStrategy", message, action, draft=drafts[0])
    if flags.has("gfd"):
        flags.note("gfd", "GPU Feature Discovery is not part of genplug, and can stay")
    flags.read["gfd"] = None
    plugin = flags.section("plugin")
    if plugin is not None:
        _convert_plugin(plugin, drafts)
    flags.finish()


def _convert_plugin(plugin: Section, drafts: list[Draft]) -> None:
    plugin.notes(_PLUGIN_NOTES)
    if not plugin.flag("passDeviceSpecs", default=True):
        plugin.note("passDeviceSpecs", "genplug always puts the device nodes into its response to the kubelet")
    template = "${index}" if _read_strategy(plugin, "deviceIDStrategy", _ID_STRATEGIES) == "index" else "${uuid}"
    raw = plugin.node("deviceListStrategy")
    words = plugin.texts("deviceListStrategy") if isinstance(raw, ListNode) else []
    if isinstance(raw, ScalarNode):
        words = [raw]
    names = [name.strip() for word in words for name in word.text.split(",")] or ["envvar"]
    for name in names:
        if name not in _LIST_STRATEGIES:
            hint = f"the plugin knows {', '.join(_LIST_STRATEGIES)}"
            plugin.error("deviceListStrategy", f"expected a strategy, found {name!r}", hint)
    for draft in drafts:
        _set_list_strategy(plugin, draft, names, template)
    policy = plugin.text("sharedDevicesAllocationPolicy")
    if policy not in ("", "distributed", "packed"):
        hint = "the plugin knows distributed and packed"
        plugin.error("sharedDevicesAllocationPolicy", f"expected a policy, found {policy!r}", hint)
    for draft in drafts:
        if policy == "packed" and "replicas" in draft.body:
            draft.body["preferredAllocation"] = {"policy": "packed"}
    plugin.finish()


def _set_list_strategy(plugin: Section, draft: Draft, names: list[str], template: str) -> None:
    is_whole = draft.body["allocate"]["env"].get(_VISIBLE) != "void"
    if is_whole:
        draft.body["allocate"]["env"][_VISIBLE] = template
    if "volume-mounts" in names:
        message = "genplug cannot select cards with mounts; the variable NVIDIA_VISIBLE_DEVICES selects them"
        action = "set 'accept-nvidia-visible-devices-envvar-when-unprivileged = true' of the NVIDIA runtime"
        plugin.unsupported("deviceListStrategy", message, action, draft=draft, at=("allocate",))
    if not any(name.startswith("cdi-") for name in names):
        return
    if not is_whole:
        message = "genplug does not know the names of the CDI devices of slices"
        plugin.unsupported("deviceListStrategy", message, "the device nodes are in the response", draft=draft)
        return
    draft.body["allocate"]["cdiDevices"] = [f"nvidia.com/gpu={template}"]
    # Not `*`, which would allow the name `all`.
    plugin.report.allow("cdi", "allow", "nvidia.com/gpu=GPU-*" if template == "${uuid}" else "nvidia.com/gpu=[0-9]*")
    if "envvar" not in names:
        env: Body = draft.body["allocate"]["env"]
        # With `void`, the NVIDIA runtime adds no cards to those of the CDI devices.
        env[_VISIBLE] = "void"
        plugin.report.allow("env", "allow", f"{_VISIBLE}=void")


def _convert_imex(file: Section, drafts: list[Draft]) -> None:
    imex = file.section("imex")
    if imex is None:
        return
    channels = [item.text for item in imex.texts("channelIDs")]
    if channels not in ([], ["0"]):
        imex.error("channelIDs", f"expected [] or [0], found [{', '.join(channels)}]")
    node: Body = {"path": "/dev/nvidia-caps-imex-channels/channel0"}
    if not imex.flag("required"):
        node["optional"] = True
    for draft in drafts if channels else ():
        for source in draft.body["devices"]:
            source.setdefault("with", []).append(dict(node))
    imex.finish()
