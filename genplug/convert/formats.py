"""The formats that can be converted, and the conversion of a text."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, TooManyErrorsError
from genplug.config.foreign_files import find_foreign_file, is_helm_template
from genplug.config.yaml_tree import ListNode, MapNode, attach_source_lines
from genplug.convert import akri, generic_device_plugin, intel, kubevirt, nvidia, rdma_shared, smarter, sriov
from genplug.convert.checking import build_conversion
from genplug.convert.conversion import Conversion, Kind, Report
from genplug.convert.sources import Source, find, read_source, walk
from genplug.spec.diagnostic import ErrorCode


class Format(Struct, frozen=True):
    """A format of another device plugin.

    ``name`` is the argument of ``--from``, ``title`` the name of the plugin, and ``guide`` the page in
    docs/how-to/migrate. ``is_format`` returns whether a source has this format.
    """

    name: str
    title: str
    guide: str
    convert: Callable[[Source, Report], None]
    is_format: Callable[[Source], bool]


def _has_key(*keys: str) -> Callable[[Source], bool]:
    return lambda source: any(
        isinstance(tree, MapNode) and not {*keys}.isdisjoint(tree.entries) for tree in source.trees
    )


def _has_list_with(*keys: str) -> Callable[[Source], bool]:
    return lambda source: any(
        isinstance(item, MapNode) and any(key.lower() in keys for key in item.entries)
        for tree in source.trees
        if isinstance(tree, ListNode)
        for item in tree.items
    )


def _has_image(*parts: str) -> Callable[[Source], bool]:
    return lambda source: any(part in program.image for program in source.programs for part in parts)


def _has_spec(group: str, key: str) -> Callable[[Source], bool]:
    return lambda source: any(find(found, "spec", key) is not None for found in source.kinds(group))


def _any_of(*checks: Callable[[Source], bool]) -> Callable[[Source], bool]:
    return lambda source: any(check(source) for check in checks)


def _is_nvidia(source: Source) -> bool:
    hints = ("NVIDIA",)
    return any(
        isinstance(tree, MapNode)
        and (found := find_foreign_file(tree)) is not None
        and any(hint in found.name for hint in hints)
        for tree in source.trees
    )


def _has_permitted_devices(source: Source) -> bool:
    return any(
        "permittedHostDevices" in part.entries for tree in (*source.trees, *source.objects) for part in walk(tree)
    )


FORMATS: Mapping[str, Format] = {
    format_.name: format_
    for format_ in (
        Format(
            "generic-device-plugin",
            "generic-device-plugin",
            "generic-device-plugin",
            generic_device_plugin.convert,
            _any_of(
                _has_list_with("groups"),
                lambda source: any(
                    isinstance(tree, MapNode)
                    and ("groups" in tree.entries or isinstance(tree.get("devices"), ListNode))
                    for tree in source.trees
                ),
                _has_image("generic-device-plugin"),
            ),
        ),
        Format(
            "smarter",
            "smarter-device-manager",
            "smarter-device-manager",
            smarter.convert,
            _has_list_with("devicematch", "nummaxdevices"),
        ),
        Format(
            "rdma-shared",
            "k8s-rdma-shared-dev-plugin",
            "rdma-shared",
            rdma_shared.convert,
            _any_of(_has_key("configList"), _has_spec("mellanox.com", "rdmaSharedDevicePlugin")),
        ),
        Format(
            "sriov",
            "the SR-IOV network device plugin",
            "sriov",
            sriov.convert,
            _any_of(_has_key("resourceList"), _has_spec("mellanox.com", "sriovDevicePlugin")),
        ),
        Format(
            "nvidia",
            "the NVIDIA device plugin",
            "nvidia",
            nvidia.convert,
            _any_of(_is_nvidia, _has_image("nvidia/k8s-device-plugin")),
        ),
        Format(
            "intel",
            "the Intel device plugins",
            "intel",
            intel.convert,
            lambda source: bool(source.kinds(intel.GROUP)) or any(map(intel.is_plugin, source.programs)),
        ),
        Format("akri", "Akri", "akri", akri.convert, lambda source: bool(source.kinds(akri.GROUP))),
        Format("kubevirt", "KubeVirt", "kubevirt", kubevirt.convert, _has_permitted_devices),
    )
}
"""The formats by name, in the order in which they are recognized."""


def convert_text(text: str, file: str, plugin: str | None = None) -> Conversion:
    """Return the conversion of the text of a file; without ``plugin``, its format is recognized.

    Raises:
        ConfigInvalidError: the text is not valid for the format, or its format is not recognized.
    """
    diagnostics = Diagnostics()
    report = Report(file, diagnostics)
    try:
        source = read_source(text, file, diagnostics)
        if diagnostics.found and is_helm_template(text):
            # Errors in a template say nothing about the configuration.
            diagnostics.found.clear()
            hint = "render the chart: helm template RELEASE CHART | genplug convert -"
            message = "expected a configuration of another device plugin, found a template of a Helm chart"
            diagnostics.add(ErrorCode.WRONG_VERSION, source.start, message, hint=hint)
        found = FORMATS[plugin] if plugin is not None else recognize(source)
        if found is None and not diagnostics.found:
            hint = f"name the format: --from {'|'.join(FORMATS)}"
            diagnostics.add(
                ErrorCode.WRONG_VERSION, source.start, "the format of the file is not recognized", hint=hint
            )
        if found is not None and not diagnostics.found:
            report.plugin = found.title
            found.convert(source, report)
            if not report.drafts and not diagnostics.found and not _has_left_out(report):
                message = f"found no configuration of {found.title} in the file"
                hint = f"docs/how-to/migrate/{found.guide}.md shows an example; another format has another --from"
                diagnostics.add(ErrorCode.NO_RESOURCES, source.start, message, hint=hint)
    except TooManyErrorsError:
        found = None
    if diagnostics.found or found is None:
        raise ConfigInvalidError(attach_source_lines(diagnostics.found, {file: text}))
    return build_conversion(report, found.name)


def recognize(source: Source) -> Format | None:
    """Return the format of a source, or None."""
    return next((format_ for format_ in FORMATS.values() if format_.is_format(source)), None)


def _has_left_out(report: Report) -> bool:
    return any(remark.kind is Kind.UNSUPPORTED for remark in report.remarks)
