"""The output of ``genplug validate --privileges``: what the agent needs for each configuration, and why."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from genplug.cli.output import format_yaml
from genplug.config.privileges import PROVISIONS, build_security_context, find_needs
from genplug.spec.printable import escape_line
from genplug.spec.privileges import Need, NeedKind

if TYPE_CHECKING:
    from genplug.config.inputs import ConfigInput
    from genplug.spec.model import Config


def build_document(valid: "Sequence[tuple[ConfigInput, Config]]") -> dict[str, object]:
    """Return the needs of valid configurations as a JSON document (schemas/privileges.schema.json)."""
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Privileges",
        "configurations": [
            {
                "files": list(config.files),
                "pool": found.pool,
                "node": found.node_name,
                "needs": [_build_need(key, causes) for key, causes in _group(find_needs(config)).items()],
                "securityContext": build_security_context(find_needs(config)),
            }
            for found, config in valid
        ],
    }


def format_text(found: "ConfigInput", config: "Config") -> str:
    """Return the needs of a configuration for human readers."""
    needs = find_needs(config)
    groups = _group(needs)
    extra = {key: causes for key, causes in groups.items() if not PROVISIONS[key[0]].is_default}
    pool = f"pool {found.pool}: " if found.pool else ""
    node = f"node {found.node_name}: " if found.node_name else ""
    subject = escape_line(f"{', '.join(config.files)}: {pool}{node}")
    if not extra:
        lines = [f"{subject}the agent needs nothing beyond the defaults of the chart and of the systemd unit"]
    else:
        lines = [f"{subject}the agent needs more than the defaults of the chart"]
    for is_default in (False, True):
        selected = {key: causes for key, causes in groups.items() if PROVISIONS[key[0]].is_default is is_default}
        if selected and is_default:
            lines += ["", "Provided by the defaults:"]
        for key, causes in selected.items():
            lines += ["", *_format_group(key, causes)]
    if extra:
        context = {"securityContext": build_security_context(needs)}
        lines += ["", "The container of the agent in the chart:", *_indent(format_yaml(context).splitlines())]
    return "\n".join(lines)


def _group(needs: Sequence[Need]) -> dict[tuple[NeedKind, str], list[Need]]:
    """Return the needs by kind and subject, in the order of the kinds."""
    order = list(NeedKind)
    groups: dict[tuple[NeedKind, str], list[Need]] = {}
    for need in sorted(needs, key=lambda need: (order.index(need.kind), need.subject)):
        groups.setdefault((need.kind, need.subject), []).append(need)
    return groups


def _build_need(key: tuple[NeedKind, str], causes: Sequence[Need]) -> dict[str, object]:
    kind, subject = key
    provision = PROVISIONS[kind]
    return {
        "kind": kind.value,
        "subject": subject,
        "isDefault": provision.is_default,
        "title": provision.title.format(subject=subject),
        "chart": provision.chart.format(subject=subject),
        "systemd": provision.systemd.format(subject=subject),
        "policy": provision.policy.format(subject=subject),
        "causes": [
            {
                "file": cause.location.file,
                "line": cause.location.line,
                "column": cause.location.column,
                "path": cause.key_path,
                "resource": cause.resource,
                "reason": cause.reason,
            }
            for cause in causes
        ],
    }


def _format_group(key: tuple[NeedKind, str], causes: Sequence[Need]) -> Iterator[str]:
    kind, subject = key
    provision = PROVISIONS[kind]
    yield escape_line(provision.title.format(subject=subject))
    for cause in causes:
        yield escape_line(f"  {cause.location}: {cause.resource}")
        yield escape_line(f"    {cause.reason}")
    settings = {"chart": provision.chart, "systemd": provision.systemd, "policy": provision.policy}
    for name, setting in settings.items():
        if setting:
            yield escape_line(f"  {name + ':':8} {setting.format(subject=subject)}")


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
