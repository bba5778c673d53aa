"""The table of ``genplug doctor``."""

from collections.abc import Iterator, Sequence

from genplug import __version__
from genplug.cli.output import Cell, Painted, Style, format_table, paint, table_width, wrap_line
from genplug.doctor.findings import Check, Finding, Observation, Report, Severity
from genplug.spec.printable import escape_line

_STYLES = {
    Severity.ERROR: Style.ERROR,
    Severity.WARNING: Style.WARNING,
    Severity.UNKNOWN: Style.FAINT,
    Severity.OK: Style.GOOD,
}
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.UNKNOWN, Severity.OK)


def format_checks(checks: Sequence[Check]) -> str:
    """Return a table of checks for ``--list``."""
    rows = [(check.name, check.group, check.title) for check in checks]
    return format_table(("CHECK", "GROUP", "EXAMINES"), rows, table_width())


def format_findings(report: Report, *, is_wide: bool) -> str:
    """Return the summary and a table of the findings, by severity; without ``is_wide``, ok findings are one line."""
    findings = sorted(report.findings, key=lambda finding: _ORDER.index(finding.severity))
    shown = [finding for finding in findings if is_wide or finding.severity is not Severity.OK]
    parts = [_format_summary(report)]
    if shown:
        width = None if is_wide else table_width()
        parts.append(format_table(("CHECK", "RESULT", "FOUND"), list(_build_rows(shown)), width))
    hidden = dict.fromkeys(finding.check.name for finding in findings if finding not in shown)
    if hidden:
        parts.append(wrap_line(f"ok: {', '.join(hidden)}"))
    return "\n\n".join(parts)


def _format_summary(report: Report) -> str:
    node = f" on {escape_line(report.node)}" if report.node else ""
    counts = [(sum(finding.severity is severity for finding in report.findings), severity) for severity in _ORDER]
    text = ", ".join(_count(count, severity) for count, severity in counts if count)
    title = f"genplug doctor {__version__}{node}: {'ready' if report.is_ready else 'NOT READY'} ({text})"
    return title if report.is_ready else paint(title, Style.ERROR)


def _count(count: int, severity: Severity) -> str:
    has_plural = count > 1 and severity in {Severity.ERROR, Severity.WARNING}
    return f"{count} {severity.value}{'s' if has_plural else ''}"


def _build_rows(findings: Sequence[Finding]) -> Iterator[Sequence[Cell]]:
    """Yield a row for each finding; checks with the same observation, such as a missing fact, are one row."""
    groups: dict[Observation, list[Check]] = {}
    for finding in findings:
        groups.setdefault(finding.observation, []).append(finding.check)
    for observation, checks in groups.items():
        lines = [observation.found]
        if observation.action:
            lines += [f"why: {checks[0].why}", f"do: {observation.action}"]
        severity = observation.severity
        names = tuple(check.name for check in checks)
        yield names, Painted(severity.value, _STYLES[severity]), tuple(lines)
