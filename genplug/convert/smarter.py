"""Converts configurations of smarter-device-manager: a list of regular expressions over the paths below /dev.

The keys and their meaning are those of ``main.go`` of github.com/smarter-project/smarter-device-manager: an expression
without anchors, a resource ``smarter-devices/PATH`` for each path, in which every character other than letters, digits,
``_`` and ``-`` is ``_``. Go and genplug have the same syntax of regular expressions (RE2).
"""

import re

from genplug.config.yaml_tree import ListNode
from genplug.convert.conversion import Body, Draft, Kind, Report
from genplug.convert.section import Section, sections_of
from genplug.convert.shares import allow_overlaps, set_replicas, set_tokens
from genplug.convert.sources import Source
from genplug.convert.texts import is_known_directory
from genplug.spec.globs import escape_glob

PREFIX = "smarter-devices/"
_LITERAL = re.compile(r"(?:[\w/ @%:,#=~-]|\\[.+*?()\[\]{}^$|\\/-])*")
_UNIT = re.compile(r"(?:[*?+{])")
_NUMBER = re.compile(r"(?:\[0-9\]|\\d)[*+]?\$?\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_ALL = "smarter-device-manager takes it as an expression that matches everything below /dev"


def convert(source: Source, report: Report) -> None:
    """Add the resources of a source to a report."""
    for tree in source.trees:
        if isinstance(tree, ListNode):
            for entry in sections_of(tree, report, ""):
                _convert_entry(entry, report)
    allow_overlaps(report)
    for program in source.programs:
        for option in program.options():
            if option.name == "config":
                report.note(option.location, "--config is not needed: genplug reads its configuration from --config")


def _convert_entry(entry: Section, report: Report) -> None:
    pattern = entry.text("devicematch")
    has_count = entry.has("nummaxdevices")
    count = entry.number("nummaxdevices", 0)
    entry.finish()
    if not pattern:
        action = "write 'devicematch' in lower case, with an expression for the devices that you need"
        report.remark(
            Kind.UNSUPPORTED, entry.location, f"an entry without 'devicematch' is left out: {_ALL}", action,
            key=entry.path,
        )  # fmt: skip
        return
    if pattern == "nvidia-gpu":
        message = "this entry offers the GPUs of Jetson boards, and is left out"
        entry.unsupported("devicematch", message, "'genplug init nvidia-gpu' prints a configuration for NVIDIA GPUs")
        return
    draft = _build(entry, pattern)
    if draft is None:
        return
    if count < 1:
        problem = "0 devices" if has_count else "no number, which smarter-device-manager takes as 0 devices"
        action = "each device is offered once; set 'nummaxdevices' before the conversion for another number"
        entry.unsupported("nummaxdevices", f"the entry has {problem}", action, draft=draft)
    is_single = "${" not in draft.name
    if count > 1:
        (set_tokens if is_single else set_replicas)(draft, count, entry, "nummaxdevices")
    report.add(draft)


def _build(entry: Section, pattern: str) -> Draft | None:
    location = entry.locate("devicematch")
    is_anchored = pattern.startswith("^")
    body = pattern.removeprefix("^")
    literal, rest = _split(body) if is_anchored else ("", body)
    name = f"{PREFIX}{_UNSAFE.sub('_', literal)}"
    glob = f"/dev/{escape_glob(literal)}"
    if is_anchored and rest == "$":
        draft = Draft(name, location)
        draft.add_source(_build_literal(literal, glob))
        return draft
    if literal and _NUMBER.match(rest):
        draft = Draft(f"{name}${{index}}", location)
        draft.add_source({"glob": f"{glob}[0-9]*"})
        return draft
    if not literal and "/" not in rest and _matches_all(rest):
        entry.unsupported("devicematch", f"the expression {pattern!r} is left out: it matches everything below /dev",
                          "write an expression for the devices that you need")  # fmt: skip
        return None
    draft = Draft(f"{name}${{rest|replace:/:_}}", location)
    globs = [f"{glob}*", f"{glob}*/**"] if is_anchored else ["/dev/**"]
    source: Body = {
        "glob": globs[0] if len(globs) == 1 else globs,
        "attributes": {
            "device": {"value": "${path}", "find": "^/dev/(.*)$"},
            "rest": {"value": "${path}", "find": f"^/dev/{re.escape(literal)}(.*)$"},
        },
        "where": {"device": {"matches": pattern}},
    }
    at = draft.add_source(source)
    if not is_anchored:
        message = "the expression has no '^' at its start, so genplug searches all of /dev"
        entry.note("devicematch", message, "write a glob for the directory of the devices", draft=draft, at=at)
    return draft


def _build_literal(literal: str, glob: str) -> Body:
    if not is_known_directory(f"/dev/{literal}"):
        return {"glob": glob}
    directory = glob.rstrip("/")
    return {"glob": directory, "type": "directory", "nodes": [{"path": f"{directory}/*", "optional": True}]}


def _split(pattern: str) -> tuple[str, str]:
    """Return the literal text at the start of an expression, and the rest of the expression."""
    if "|" in pattern:
        return "", pattern
    found = _LITERAL.match(pattern)
    text = found[0] if found else ""
    rest = pattern[len(text) :]
    if text and _UNIT.match(rest):
        # A repetition belongs to the last character.
        cut = 2 if len(text) > 1 and text[-2] == "\\" else 1
        text, rest = text[:-cut], pattern[len(text) - cut :]
    return re.sub(r"\\(.)", r"\1", text), rest


def _matches_all(pattern: str) -> bool:
    return pattern in ("", "$", ".*", ".*$", ".+", ".+$", ".")
