"""Checks a conversion with genplug's own decoder, so that each result is a valid configuration.

A resource that genplug does not accept, for example because of its name, is left out with the error as the reason.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy
from genplug.convert.conversion import Body, Conversion, Draft, Kind, Report
from genplug.convert.yaml_writer import HEADER, POLICY_HEADER, format_document
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.policy import DEFAULT_POLICY, Policy

_NAME = "converted.yaml"
_ORDER = (
    *("devices", "aliases", "expect", "replicas", "tokens", "slices"),
    *("share", "preferredAllocation", "topology", "allocate", "health"),
)
"""The keys of a resource in the order of docs/reference/configuration.md."""
_REFERENCE = re.compile(r"\$\{[^}]*\}")


def build_conversion(report: Report, plugin: str) -> Conversion:
    """Return the conversion with the resources that genplug accepts.

    Raises:
        ConfigInvalidError: the configuration as a whole exceeds a limit of genplug.
    """
    policy = _read_policy(report.policy, report.drafts)
    kept = _keep_valid(report.drafts, report, policy)
    document = _document(kept)
    needed = bool(report.policy) and bool(_errors(document, DEFAULT_POLICY) or _is_checked_later(report))
    return Conversion(
        plugin,
        report.plugin,
        report.file,
        document["resources"],
        tuple(sorted(report.remarks, key=lambda remark: (remark.location.line, remark.location.column))),
        _policy_document(report.policy, kept) if needed else None,
    )


def _keep_valid(drafts: list[Draft], report: Report, policy: Policy) -> list[Draft]:
    """Return the resources that genplug accepts in one configuration; add the reason for each other resource.

    Raises:
        ConfigInvalidError: the configuration as a whole exceeds a limit of genplug.
    """
    while errors := _errors(_document(drafts), policy):
        reasons: dict[str, list[Diagnostic]] = {}
        for error in errors:
            if (name := _find_resource(error, drafts)) is not None:
                reasons.setdefault(name, []).append(error)
        if not reasons:
            raise ConfigInvalidError(
                Diagnostic(ErrorCode.LIMIT, drafts[0].location, error.message, hint=error.hint) for error in errors
            )
        for draft in drafts:
            if draft.name in reasons:
                _remark_left_out(draft, reasons[draft.name], report)
        drafts = [draft for draft in drafts if draft.name not in reasons]
    return drafts


def _find_resource(error: Diagnostic, drafts: Sequence[Draft]) -> str | None:
    """Return the name of the resource that an error concerns, or None if it concerns the whole configuration."""
    path = error.key_path.removeprefix("resources.")
    names = [
        draft.name for draft in drafts if path == draft.name or path.startswith((f"{draft.name}.", f"{draft.name}["))
    ]
    return max(names, key=len, default=None)


def _remark_left_out(draft: Draft, errors: Sequence[Diagnostic], report: Report) -> None:
    messages = "; ".join(dict.fromkeys(error.message for error in errors[:3]))
    report.remark(
        Kind.UNSUPPORTED,
        draft.location,
        f"the resource {draft.name} is left out, because genplug does not accept it: {messages}",
        errors[0].hint or "correct the source, and convert it again",
    )


def _document(drafts: Sequence[Draft]) -> dict[str, Any]:
    return {**HEADER, "resources": {draft.name: _sort_keys(draft.body) for draft in drafts}}


def _sort_keys(body: Body) -> Body:
    return {key: body[key] for key in _ORDER if key in body}


def _errors(document: Mapping[str, Any], policy: Policy) -> tuple[Diagnostic, ...]:
    try:
        load_text(format_document(document), _NAME, policy)
    except ConfigInvalidError as error:
        return error.diagnostics
    return ()


def _is_checked_later(report: Report) -> bool:
    """Return whether the policy has entries for templates, which are checked when a device is found."""
    return not {"cdi", "env"}.isdisjoint(report.policy)


def _policy_document(policy: Mapping[str, Any], drafts: Sequence[Draft]) -> dict[str, Any]:
    names = list(dict.fromkeys(_REFERENCE.sub("*", draft.name) for draft in drafts))
    return {**POLICY_HEADER, "resources": names or ["*"], **policy}


def _read_policy(policy: Mapping[str, Any], drafts: Sequence[Draft]) -> Policy:
    """Return the policy that the resources need, or the default policy if genplug does not accept it."""
    if not policy:
        return DEFAULT_POLICY
    text = format_document({**_policy_document(policy, drafts), "resources": ["*"]})
    try:
        return decode_policy(ConfigFile("policy.yaml", text), Diagnostics())
    except ConfigInvalidError:
        return DEFAULT_POLICY
