"""The content of the status page, built from a status and the history of the health. Pure.

The content is a list of sections. Each of them has an ID that is stable over time, so that the script of the page can
replace the sections that changed. Each fact is a text in a table, so that the page is complete without the script and
for a screen reader; bars and tiles are an overview of the tables.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2s
from itertools import groupby
from typing import TYPE_CHECKING

from genplug.observe.health_history import (
    BOTH,
    HEALTHY,
    MINUTES,
    UNHEALTHY,
    UNKNOWN,
    DeviceKey,
    HealthEntry,
    read_minutes,
)
from genplug.observe.page.elements import Child, Element, build_element
from genplug.observe.status import ConfigStatus, DeviceStatus, ResourceStatus, Status
from genplug.observe.text import describe_kept_endpoint, format_time, summarize_probes, summarize_texts

if TYPE_CHECKING:
    from genplug.observe.dra_status import DraStatus, PublishedStatus

MAX_DEVICES = 500
"""Devices on the page, unhealthy devices first; each of them is about 1.5 KB of HTML. The rest is counted."""
MAX_USES = 500
"""Containers in the table of containers. The rest is counted."""
MAX_REASONS = 10
"""Reasons in a list. The rest is counted."""
MAX_NEWS = 3
"""Changes that are announced at once."""
_HEIGHTS = {HEALTHY: (6, 6), UNHEALTHY: (0, 12), BOTH: (3, 9), UNKNOWN: (11, 1)}
"""The top and the height of a minute in a strip: shapes differ, not only colors."""
_BAR_WIDTH = 120
_BAR_KINDS = {
    "in-use": ("healthy and in use", (0, 12)),
    "free": ("healthy and free", (5, 7)),
    "healthy": ("healthy", (5, 7)),
    "unhealthy": ("unhealthy", (0, 5)),
}
"""The parts of a bar, each with its name, its top and its height."""

Entries = Mapping[DeviceKey, HealthEntry]


class Clock:
    """The time for which a page is built: seconds since the epoch, and the same time of the monotonic clock."""

    def __init__(self, epoch: float, monotonic: float) -> None:
        self.epoch = epoch
        self.monotonic = monotonic


def build_title(status: Status) -> str:
    """Return the title of the page."""
    return f"{'Ready' if status.is_ready else 'Not ready'} - genplug{_format_node(status)}"


def build_sections(status: Status, entries: Entries, clock: Clock) -> Iterator[tuple[str, Element]]:
    """Yield the sections of the page with their IDs, so that only one of them is in memory as elements."""
    yield "summary", _build_summary(status)
    yield "resources", _build_resources(status.resources)
    shown = _select_devices(status.resources)
    for resource in status.resources:
        if resource.devices:
            yield _section_id(resource), _build_devices(resource, shown[resource.name], entries, clock)
    yield "containers", _build_containers(status.resources)
    if status.dra is not None:
        yield "dra", _build_dra(status.dra)


def describe_changes(previous: Status, current: Status) -> str:
    """Return what changed between two statuses for the live region of the page, or an empty string."""
    news: list[str] = []
    if previous.is_ready != current.is_ready:
        news.append("the agent is ready" if current.is_ready else "the agent is not ready")
    if previous.config.loaded_at != current.config.loaded_at:
        news.append("a configuration is active")
    if previous.config.error != current.config.error and current.config.error:
        news.append("the newest configuration is invalid")
    known = {resource.name: resource for resource in previous.resources}
    for resource in current.resources:
        news += _describe_resource_changes(known.pop(resource.name, None), resource)
    news += [f"{name} was removed" for name in known]
    more = len(news) - MAX_NEWS
    return "; ".join(news[:MAX_NEWS]) + (f"; and {more} more changes" if more > 0 else "")


def _describe_resource_changes(previous: ResourceStatus | None, current: ResourceStatus) -> Iterator[str]:
    if previous is None:
        yield f"{current.name} was added"
        return
    if (previous.healthy, previous.unhealthy) != (current.healthy, current.unhealthy):
        yield f"{current.name}: {current.healthy} healthy, {current.unhealthy} unhealthy"
    if previous.is_registered != current.is_registered:
        yield f"{current.name} is {'registered' if current.is_registered else 'not registered'}"
    if current.last_refusal is not None and previous.last_refusal != current.last_refusal:
        yield f"{current.name}: an Allocate request was refused"
    used, previously_used = current.used_ids, previous.used_ids
    if used is not None and previously_used is not None and len(used) != len(previously_used):
        yield f"{current.name}: {len(used)} in use"


def _build_summary(status: Status) -> Element:
    config = status.config
    facts: list[tuple[str, Child | None]] = [
        ("Version", status.version),
        ("Node", status.node or "not known"),
        ("Configuration", config.sha256[:12] or "none"),
        ("Files", ", ".join(config.files) or "none"),
        ("Active since", _build_time(config.loaded_at)),
        ("Policy", config.policy or "none"),
        ("Last reload", "invalid; the error is below" if config.error else "valid" if config.sha256 else "none"),
    ]
    terms = [build_element("div", build_element("dt", term), build_element("dd", value)) for term, value in facts]
    warnings = (*config.warnings, *status.unwatched, *_list_probe_lines(status))
    return build_element(
        "section",
        build_element("h1", f"genplug{_format_node(status)}"),
        build_element(
            "p",
            _build_badge("Ready" if status.is_ready else "Not ready", is_good=status.is_ready),
            class_="state",
        ),
        _build_reasons("Reasons", status.unready, skipped=config.error if config.loaded_at is None else ""),
        *_build_reload_error(config),
        build_element("dl", *terms),
        _build_reasons("Warnings", warnings),
        id="summary",
        aria_label="Agent",
    )


def _list_probe_lines(status: Status) -> Iterator[str]:
    errors = ((error.resource, error.probe, error.devices, error.error) for error in status.health.errors)
    yield from summarize_probes(errors, "cannot check", "error")
    warnings = (
        (warning.resource, warning.probe, warning.devices, warning.reason) for warning in status.health.warnings
    )
    yield from summarize_probes(warnings, "warns about", "reason")


def _build_reload_error(config: ConfigStatus) -> Iterator[Element]:
    if not config.error:
        return
    kept = "" if config.loaded_at is None else ". The configuration below remains active"
    yield build_element("h2", "Error of the newest configuration")
    yield build_element("p", f"The newest files are invalid{kept}. Correct the files; the agent reads them again.")
    yield build_element("pre", config.error, tabindex="0", role="region", aria_label="Error of the configuration")


def _build_reasons(heading: str, reasons: Sequence[str], skipped: str = "") -> Element | None:
    """Return a list of reasons; ``skipped`` is a text that the page contains elsewhere."""
    if not reasons:
        return None
    texts = [reason.removesuffix(skipped).rstrip(": ") if skipped else reason for reason in reasons]
    items = [build_element("li", text) for text in texts[:MAX_REASONS]]
    if len(texts) > MAX_REASONS:
        items.append(build_element("li", f"and {len(texts) - MAX_REASONS} more; 'genplug status -o json' shows all"))
    return build_element("div", build_element("h2", heading), build_element("ul", *items), class_="reasons")


def _build_resources(resources: Sequence[ResourceStatus]) -> Element:
    headings = ("Resource", "Overview", "Healthy", "Unhealthy", "In use", "Free", "Registered", "Remarks")
    rows = [("", _build_resource_cells(resource)) for resource in resources]
    return build_element(
        "section",
        build_element("h2", "Resources"),
        _build_legend(resources) if rows else None,
        _build_table("Resources of this node", headings, rows) if rows else build_element("p", "No resources."),
        id="resources",
        aria_label="Resources",
    )


def _build_legend(resources: Sequence[ResourceStatus]) -> Element:
    found = {kind for resource in resources for kind, _ in _measure_bar(resource)}
    items = [
        build_element("li", _build_svg((_build_rect(0, 12, kind, *position),), 12, "swatch"), name)
        for kind, (name, position) in _BAR_KINDS.items()
        if kind in found
    ]
    return build_element("ul", *items, class_="legend", aria_label="Legend of the overview")


def _build_resource_cells(resource: ResourceStatus) -> list[Child | None]:
    lengths, used, name = _measure_bar(resource), resource.used_ids, resource.name
    return [
        build_element("a", name, href=f"#{_section_id(resource)}") if resource.devices else name,
        _build_bar(lengths),
        str(resource.healthy),
        str(resource.unhealthy),
        "not known" if used is None else str(len(used)),
        str(dict(lengths).get("free", "not known")),
        "removed" if resource.is_removed else "yes" if resource.is_registered else "no",
        _build_remarks(list(_list_remarks(resource))),
    ]


def _measure_bar(resource: ResourceStatus) -> tuple[tuple[str, int], ...]:
    """Return the parts of the bar of a resource and their numbers of devices. An unhealthy device can be in use."""
    used, unhealthy = resource.used_ids, ("unhealthy", resource.unhealthy)
    if used is None:
        return ("healthy", resource.healthy), unhealthy
    free = sum(device.healthy and device.id not in used for device in resource.devices)
    return ("in-use", resource.healthy - free), ("free", free), unhealthy


def _build_remarks(remarks: Sequence[str]) -> Child:
    return build_element("ul", *(build_element("li", remark) for remark in remarks)) if remarks else "none"


def _list_remarks(resource: ResourceStatus) -> Iterator[str]:
    if resource.has_kept_endpoint:
        yield describe_kept_endpoint(is_moved=resource.is_moved, pods=resource.kept_for_pods)
    if not (resource.is_registered or resource.is_removed):
        yield resource.reason or f"the kubelet has not opened a stream yet (phase {resource.phase})"
    if resource.shortage:
        yield resource.shortage
    if (refusal := resource.last_refusal) is not None:
        yield f"last refused Allocate request at {format_time(refusal.time)}: {refusal.message}"
    reasons = summarize_texts(device.reason for device in resource.devices if device.reason)
    texts = [*reasons, *resource.notes]
    yield from texts[:MAX_REASONS]
    if len(texts) > MAX_REASONS:
        yield f"{len(texts) - MAX_REASONS} more; 'genplug status -o wide' shows all"


def _build_bar(lengths: Iterable[tuple[str, int]]) -> Element:
    shown = [(kind, length) for kind, length in lengths if length]
    total = sum(length for _, length in shown)
    rects, start = [], 0
    for index, (kind, length) in enumerate(shown):
        # Each kind is at least two units wide, so that a single unhealthy device of 10 000 is visible.
        left = _BAR_WIDTH - start - 2 * (len(shown) - index - 1)
        width = left if index == len(shown) - 1 else min(max(round(_BAR_WIDTH * length / total), 2), left)
        rects.append(_build_rect(start, width, kind, *_BAR_KINDS[kind][1]))
        start += width
    return _build_svg(tuple(rects), _BAR_WIDTH, "bar")


def _select_devices(resources: Sequence[ResourceStatus]) -> dict[str, list[DeviceStatus]]:
    """Return the devices of each resource that the page shows: unhealthy devices first, in the order of the list."""
    left, chosen = MAX_DEVICES, {resource.name: set[str]() for resource in resources}
    for is_healthy in (False, True):
        for resource in resources:
            for device in resource.devices:
                if left and device.healthy is is_healthy:
                    chosen[resource.name].add(device.id)
                    left -= 1
    return {
        resource.name: [device for device in resource.devices if device.id in chosen[resource.name]]
        for resource in resources
    }


def _build_devices(resource: ResourceStatus, shown: Sequence[DeviceStatus], entries: Entries, clock: Clock) -> Element:
    users: dict[str, list[str]] = {}
    for use in resource.in_use or ():
        for device_id in use.ids:
            users.setdefault(device_id, []).append(f"{use.namespace}/{use.pod} ({use.container})")
    minutes = {device.id: _read_minutes(resource, device, entries, clock) for device in shown}
    hidden, change = len(resource.devices) - len(shown), resource.last_change
    by_node = sorted(shown, key=lambda device: device.numa_nodes)
    parts: list[Element | None] = []
    for nodes, devices in groupby(by_node, key=lambda device: device.numa_nodes):
        parts += [
            build_element("h3", _describe_numa(nodes)),
            build_element(
                "ul",
                *(_build_tile(resource, device, minutes[device.id], users.get(device.id, ())) for device in devices),
                class_="tiles",
                aria_label=f"{resource.name}, {_describe_numa(nodes)}",
            ),
        ]
    headings = ("Device", "Health", "Last hour", "Since", "NUMA node", "Used by", "Paths", "Reason")
    rows = [_build_device_row(resource, device, minutes[device.id], users.get(device.id, ())) for device in shown]
    details = _build_table(f"Devices of {resource.name}", headings, rows) if rows else None
    more = f"{hidden} more devices are not shown; 'genplug status -o wide {resource.name}' shows all."
    return build_element(
        "section",
        build_element("h2", resource.name),
        None if change is None else build_element("p", f"Last change at {format_time(change.time)}: {change.message}"),
        *parts,
        details,
        build_element("p", more) if hidden else None,
        id=_section_id(resource),
        aria_label=f"Devices of {resource.name}",
    )


def _read_minutes(resource: ResourceStatus, device: DeviceStatus, entries: Entries, clock: Clock) -> tuple[str, ...]:
    age = None if device.since is None else clock.epoch - device.since
    entry = entries.get((resource.name, device.id))
    return read_minutes(entry, is_healthy=device.healthy, age=age, now=clock.monotonic)


def _build_tile(
    resource: ResourceStatus, device: DeviceStatus, minutes: Sequence[str], users: Sequence[str]
) -> Element:
    health = "healthy" if device.healthy else "unhealthy"
    return build_element(
        "li",
        build_element(
            "a",
            build_element("span", device.id, class_="name"),
            build_element("span", _mark(is_good=device.healthy), health, class_="health"),
            build_element("span", "in use", class_="use") if users else None,
            _build_strip(minutes),
            href=f"#{_device_anchor(resource, device)}",
        ),
        class_=f"tile {health}",
    )


def _build_device_row(
    resource: ResourceStatus, device: DeviceStatus, minutes: Sequence[str], users: Sequence[str]
) -> tuple[str, list[Child | None]]:
    cells: list[Child | None] = [
        device.id,
        _build_badge("healthy" if device.healthy else "unhealthy", is_good=device.healthy),
        build_element("span", _build_strip(minutes), _describe_minutes(minutes), class_="hour"),
        _build_time(device.since),
        ", ".join(map(str, device.numa_nodes)) or "not known",
        ", ".join(users) or ("nothing" if resource.in_use is not None else "not known"),
        ", ".join(device.paths),
        device.reason or "none",
    ]
    return _device_anchor(resource, device), cells


def _build_strip(minutes: Sequence[str]) -> Element:
    rects, start = [], 0
    for kind, run in groupby(minutes):
        length = sum(1 for _ in run)
        rects.append(_build_rect(start, length, kind, *_HEIGHTS[kind]))
        start += length
    return _build_svg(tuple(rects), MINUTES, "strip")


def _describe_minutes(minutes: Sequence[str]) -> str:
    """Return the last hour as a text: ``unhealthy in 4 of 60 minutes``."""
    unhealthy = sum(minute in {UNHEALTHY, BOTH} for minute in minutes)
    unknown = minutes.count(UNKNOWN)
    text = f"unhealthy in {unhealthy} of {len(minutes) - unknown} minutes" if unhealthy else "healthy"
    return f"{text}; not known for {unknown} minutes" if unknown else text


def _build_containers(resources: Sequence[ResourceStatus]) -> Element:
    uses = [(resource, use) for resource in resources for use in resource.in_use or ()]
    headings = ("Namespace", "Pod", "Container", "Resource", "Devices")
    rows: list[tuple[str, list[Child | None]]] = [
        ("", [use.namespace, use.pod, use.container, resource.name, ", ".join(use.ids)])
        for resource, use in uses[:MAX_USES]
    ]
    is_known = any(resource.in_use is not None for resource in resources)
    text = (
        "No container uses a device."
        if is_known or not resources
        else "The kubelet does not report which containers use devices: the agent cannot read its pod-resources API."
    )
    hidden = len(uses) - len(rows)
    return build_element(
        "section",
        build_element("h2", "Containers that use devices"),
        _build_table("Containers that use devices of this node", headings, rows) if rows else build_element("p", text),
        build_element("p", f"{hidden} more containers are not shown.") if hidden else None,
        id="containers",
        aria_label="Containers",
    )


def _build_dra(dra: "DraStatus") -> Element:
    resources: list[tuple[str, list[Child | None]]] = [
        (
            "",
            [
                resource.resource,
                str(resource.slices),
                str(resource.devices),
                str(resource.tainted),
                _build_remarks(list(_list_left_out(resource))),
            ],
        )
        for resource in dra.resources
    ]
    claims: list[tuple[str, list[Child | None]]] = [
        (
            "",
            [
                f"{claim.namespace}/{claim.name}",
                "not known" if claim.pods is None else ", ".join(claim.pods) or "none",
                ", ".join(f"{device.resource} {device.id}" for device in claim.devices),
            ],
        )
        for claim in dra.claims[:MAX_USES]
    ]
    hidden = len(dra.claims) - len(claims)
    headings = ("Resource", "ResourceSlices", "Devices", "Tainted", "Not published")
    facts = (("Driver", dra.driver), ("Registered since", _build_time(dra.registered_at)), ("State", dra.phase))
    return build_element(
        "section",
        build_element("h2", "Dynamic Resource Allocation"),
        build_element(
            "dl",
            *(build_element("div", build_element("dt", term), build_element("dd", value)) for term, value in facts),
        ),
        _build_reasons("Warnings of the driver", dra.warnings),
        _build_table("Published resources", headings, resources) if resources else None,
        _build_table("Prepared claims", ("Claim", "Pods", "Devices"), claims) if claims else None,
        build_element("p", f"{hidden} more claims are not shown.") if hidden else None,
        id="dra",
        aria_label="Dynamic Resource Allocation",
    )


def _list_left_out(resource: "PublishedStatus") -> Iterator[str]:
    if resource.refusal:
        yield f"refused: {resource.refusal}"
    reasons = summarize_texts(note.text for note in resource.left_out)
    yield from reasons[:MAX_REASONS]
    if len(reasons) > MAX_REASONS:
        yield f"{len(reasons) - MAX_REASONS} more; 'genplug status -o wide' shows all"


def _build_table(caption: str, headings: Sequence[str], rows: Iterable[tuple[str, Sequence[Child | None]]]) -> Element:
    """Return a table; a row is an ID, which can be empty, and its cells. The first cell is the heading of the row.

    On a narrow screen, a row is displayed as a block. The roles keep the table a table for a screen reader then.
    """
    head = [build_element("th", heading, scope="col", role="columnheader") for heading in headings]
    body = []
    for row_id, (first, *cells) in rows:
        body.append(
            build_element(
                "tr",
                build_element("th", first, scope="row", role="rowheader", data_label=headings[0]),
                *(
                    build_element("td", cell, role="cell", data_label=heading)
                    for heading, cell in zip(headings[1:], cells, strict=True)
                ),
                role="row",
                id=row_id or None,
                # A target of a link can have the focus.
                tabindex="-1" if row_id else None,
            )
        )
    return build_element(
        "table",
        build_element("caption", caption),
        build_element("thead", build_element("tr", *head, role="row"), role="rowgroup"),
        build_element("tbody", *body, role="rowgroup"),
        role="table",
    )


def _build_badge(text: str, *, is_good: bool) -> Element:
    return build_element("span", _mark(is_good=is_good), text, class_=f"badge {'good' if is_good else 'bad'}")


def _mark(*, is_good: bool) -> Element:
    return build_element("span", "✓" if is_good else "✗", class_="mark", aria_hidden="true")


def _build_svg(rects: tuple[Element, ...], width: int, kind: str) -> Element:
    return build_element(
        "svg",
        *rects,
        viewBox=f"0 0 {width} 12",
        preserveAspectRatio="none",
        class_=kind,
        # The texts beside it have the same facts.
        aria_hidden="true",
    )


def _build_rect(start: int, width: int, kind: str, top: int, height: int) -> Element:
    return build_element("rect", x=str(start), y=str(top), width=str(width), height=str(height), class_=kind)


def _build_time(epoch_seconds: float | None) -> Child:
    if epoch_seconds is None:
        return "not known"
    text = format_time(epoch_seconds)
    return build_element("time", text.replace("T", " ").replace("Z", " UTC"), datetime=text)


def _describe_numa(nodes: tuple[int, ...]) -> str:
    if not nodes:
        return "NUMA node not known"
    return f"NUMA node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}"


def _section_id(resource: ResourceStatus) -> str:
    return f"devices-{_hash(resource.name)}"


def _device_anchor(resource: ResourceStatus, device: DeviceStatus) -> str:
    return f"device-{_hash(resource.name, device.id)}"


def _hash(*names: str) -> str:
    """Return a short name for an ID of HTML, which has no characters of a device."""
    return blake2s("\0".join(names).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def _format_node(status: Status) -> str:
    return f" on {status.node}" if status.node else ""
