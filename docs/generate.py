"""Fill the generated regions of the pages under ``docs/reference`` and ``docs/internals``.

``python docs/generate.py`` writes the pages, ``--check`` fails if a page differs from what would be written. A region
begins with ``<!-- generated: NAME ARGUMENT ... -->`` and ends with ``<!-- end -->``; NAME is a key of
:data:`GENERATORS`. Everything outside of the regions is written by hand.
"""
# ruff: noqa: INP001 - a script; it is not part of a package

import argparse
import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from genplug.cli.main import COMMANDS  # noqa: E402 - of this checkout, wherever the script is started
from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: E402
from genplug.config.load import load_text  # noqa: E402
from genplug.doctor.checks import CHECKS  # noqa: E402
from genplug.documentation.keys import (  # noqa: E402
    Key,
    Schema,
    constraints,
    inline,
    list_keys,
    load_schema,
    resolve,
    resolve_items,
    sentences,
    type_text,
)
from genplug.hardware.attributes import FAMILIES  # noqa: E402
from genplug.hardware.denied_node_table import (  # noqa: E402
    ACCESSES_STORAGE,
    ANY_MINOR,
    EXPOSES_HOST,
    DeniedNode,
)
from genplug.kubectl.main import COMMANDS as KUBECTL_COMMANDS  # noqa: E402
from genplug.kubectl.options import KUBECTL_VARIABLE, add_kubectl_arguments  # noqa: E402
from genplug.observe.events import Event  # noqa: E402
from genplug.spec import limits  # noqa: E402
from genplug.spec.denied_variables import DENIED_VARIABLES, RUNTIME_DEVICES  # noqa: E402
from genplug.spec.globs import expand_braces  # noqa: E402
from tests.attacks.catalog import load_attacks  # noqa: E402
from tests.support.contract_points import (  # noqa: E402
    POINTS_WITHOUT_TEST,
    find_numbered_tests,
    read_points,
)

BuildParser = Callable[[], argparse.ArgumentParser]
"""Makes the parser of a command, with defaults from the environment."""

DIRECTORIES = (ROOT / "docs/internals", ROOT / "docs/reference")
CHART = ROOT / "deploy/helm/genplug"
REGION = re.compile(r"(?P<begin><!-- generated: (?P<call>[^\n]+?) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def main() -> int:
    """Write the pages, or report which pages differ."""
    parser = argparse.ArgumentParser(description="Fill the generated regions of docs/reference and docs/internals.")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page differs")
    check = parser.parse_args().check
    stale = {path: text for path, text in generate_pages().items() if path.read_text() != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text)
        print(path.relative_to(ROOT), "is not up to date: run python docs/generate.py" if check else "written")
    return 1 if check and stale else 0


def generate_pages() -> dict[Path, str]:
    """Return the text of every page with its regions filled."""
    return {path: fill_regions(path.read_text()) for pages in DIRECTORIES for path in sorted(pages.glob("*.md"))}


def fill_regions(text: str) -> str:
    """Return a page with its regions filled."""

    def replace(match: re.Match[str]) -> str:
        name, *arguments = match["call"].split()
        lines = GENERATORS[name](text[: match.start()], *arguments)
        return match["begin"] + "\n" + "\n".join(lines).strip("\n") + "\n\n" + match["end"]

    return REGION.sub(replace, text)


# Keys of a JSON Schema


def render_keys(_before: str, name: str, section: str = "") -> Iterator[str]:
    """Yield a section for each key of an object."""
    keys = [key for key in list_keys(name) if key.section == section]
    if not keys:
        raise ValueError(f"schemas/{name}.schema.json has no object {section!r}")
    for key in keys:
        yield from ("", f"### `{key.path}`", "", *sentences(key.schema["description"]), "")
        yield from _facts(key, load_schema(name))


def render_key_table(_before: str, name: str) -> Iterator[str]:
    """Yield a table of all keys of a document."""
    root = load_schema(name)
    yield from ("| Key | Type | Description |", "| --- | --- | --- |")
    for key in list_keys(name):
        same = f" Its keys are those of `{key.same_as}`." if key.same_as else ""
        yield f"| `{key.path}` | {type_text(key.schema, root)} | {cell_text(key.schema)}{same} |"


def render_record(_before: str, definition: str) -> Iterator[str]:
    """Yield a table of the fields of a record; a fact is a field, whatever the type of its value."""
    root = load_schema("record")
    yield from ("| Field | Type | Description | Source |", "| --- | --- | --- | --- |")
    yield from _record_rows(root["definitions"][definition], root, "")


def _record_rows(schema: Schema, root: Schema, path: str) -> Iterator[str]:
    for name, written in schema.get("properties", {}).items():
        is_fact = any(part["$ref"] == "#/definitions/fact" for part in written.get("allOf", ()))
        value = written["properties"]["value"] if is_fact else written
        field = f"{path}.{name}" if path else name
        items, items_path, _ = resolve_items(value, root, field)
        if is_fact or "properties" not in items:
            source = written.get("$comment", "").replace("|", r"\|")
            yield f"| `{field}` | {type_text(value, root)} | {cell_text({**value, **written})} | {source} |"
        yield from _record_rows(items, root, items_path)


def cell_text(schema: Schema) -> str:
    """Return the description of a value for a cell of a table."""
    allowed = [text for text in constraints(schema) if not text.startswith("Pattern")]
    return " ".join((schema["description"], *(f"{text}." for text in allowed)))


def _facts(key: Key, root: Schema) -> Iterator[str]:
    schema = key.schema
    yield f"- Type: {type_text(schema, root)}"
    if key.same_as:
        yield f"- Keys: those of `{key.same_as}`"
    if key.is_required:
        yield "- Required"
    if "default" in schema:
        yield f"- Default: `{inline(schema['default'])}`"
    yield from (f"- {text}" for text in constraints(schema))
    if schema.get("examples"):
        last = re.split(r"[.\[]", key.path.removesuffix("[]"))[-1]
        yield f"- Example: `{last}: {inline(schema['examples'][0])}`"


# Commands


VARIABLES = re.compile(r"\b(?:GENPLUG_[A-Z_]+|NODE_NAME|KUBECTL)\b")
LITERALS = re.compile(
    r"`[^`]*`|(?<![\w-])--[a-z][a-z-]*(?: json| yaml)?|" + VARIABLES.pattern + r"|[\w.]*<[\w-]+>(?:\.\w+)*"
)
"""What is code in the help of a command: options, environment variables, and placeholders."""


def render_commands(_before: str) -> Iterator[str]:
    """Yield a section for each command of ``genplug``."""
    for name, summary in COMMANDS.items():
        yield from _command(summary, partial(build_parser, name))


def render_kubectl_commands(_before: str) -> Iterator[str]:
    """Yield a section for each command of ``kubectl genplug``, without the options that all commands have."""
    for name, summary in KUBECTL_COMMANDS.items():
        yield from _command(summary, partial(build_kubectl_parser, name))


def render_kubectl_options(_before: str) -> Iterator[str]:
    """Yield a table of the options that all commands of ``kubectl genplug`` have."""
    with _environment({}):
        parser = build_options_parser()
    yield from _arguments(build_options_parser, parser)


def _command(summary: str, build: BuildParser) -> Iterator[str]:
    with _environment({}):
        parser = build()
    yield from ("", f"## `{parser.prog}`", "", *sentences(mark_literals(parser.description or f"{summary}.")), "")
    yield from ("```text", *_usage(parser), "```", "")
    yield from _arguments(build, parser)
    yield from _epilog(parser.epilog or "")


def mark_literals(text: str) -> str:
    """Return a text with what is code in it between backticks."""
    return LITERALS.sub(lambda match: match[0] if match[0].startswith("`") else f"`{match[0]}`", text)


def build_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, with defaults from the environment."""
    parser = argparse.ArgumentParser(prog=f"genplug {name}", add_help=False)
    importlib.import_module(f"genplug.cli.{name}").configure(parser)
    return parser


def build_kubectl_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command of ``kubectl genplug``, without the options that all commands have."""
    parser = argparse.ArgumentParser(prog=f"kubectl genplug {name}", add_help=False)
    importlib.import_module(f"genplug.kubectl.commands.{name}").configure(parser)
    return parser


def build_options_parser() -> argparse.ArgumentParser:
    """Return a parser of the options that all commands of ``kubectl genplug`` have."""
    parser = argparse.ArgumentParser(prog="kubectl genplug", add_help=False)
    add_kubectl_arguments(parser)
    return parser


def list_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments and options of a parser."""
    return list(parser._actions)  # noqa: SLF001 - argparse has no other way to list them


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, and no other variable of genplug."""
    saved = dict(os.environ)
    for name in list(filter(VARIABLES.fullmatch, os.environ)):
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    line = parser.prog
    for action in sorted(list_actions(parser), key=lambda action: not action.option_strings):
        part = _with_value(action.option_strings[-1], action) if action.option_strings else _value(action)
        part = part if action.required or part.startswith("[") else f"[{part}]"
        if len(line) + len(part) > 100:  # noqa: PLR2004 - a line of a page
            yield line
            line = " " * len(parser.prog)
        line += f" {part}"
    yield line


def _value(action: argparse.Action) -> str:
    """Return how the value of an argument is written."""
    if action.nargs == 0:
        return ""
    word = str(action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper())
    match action.nargs:
        case "+":
            return f"{word} [{word} ...]"
        case "*":
            return f"[{word} ...]"
        case "?":
            return f"[{word}]"
    return word


def _with_value(option: str, action: argparse.Action) -> str:
    return f"{option} {_value(action)}".strip()


def _arguments(build: BuildParser, parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = list_actions(parser)
    if not actions:
        return
    yield from ("| Argument | Environment variable | Description |", "| --- | --- | --- |")
    for action in actions:
        *short, last = action.option_strings or [""]
        written = [*short, _with_value(last, action)]
        variables = ", ".join(f"`{variable}`" for variable in find_variables(build, action))
        text = mark_literals((action.help or "").strip())
        if text.split(" ")[0] not in (action.choices or ()):
            text = text[:1].upper() + text[1:]
        text += "" if text.endswith((".", "!", "?")) else "."
        arguments = ", ".join(f"`{form}`" for form in written).replace("|", "\\|")
        yield f"| {arguments} | {variables} | {text} |"


def find_variables(build: BuildParser, action: argparse.Action) -> list[str]:
    """Return the environment variables that set the default of an option."""
    found = []
    for variable in sorted({f"GENPLUG_{action.dest.upper()}", "NODE_NAME", "GENPLUG_LISTEN", KUBECTL_VARIABLE}):
        value = str(list(action.choices)[-1]) if action.choices else "x"
        with _environment({variable: value}):
            try:
                parser = build()
            except SystemExit:
                # This variable sets another option, for which the value is not valid.
                continue
            same = next(other for other in list_actions(parser) if other.dest == action.dest)
        if (same.default, same.required) != (action.default, action.required):
            found.append(variable)
    return found


def _epilog(text: str) -> Iterator[str]:
    """Yield the parts of an epilog: indented lines as they are, exit codes as a list, the rest as sentences."""
    for part in re.split(r"\n\n+|\n(?=exit codes:)", text.strip()):
        heading, _, rest = part.partition("\n")
        if part.startswith("exit codes:"):
            codes = re.split(r", (?=\d+ )", " ".join(part.split()).removeprefix("exit codes: "))
            yield from ("", "Exit codes:", "")
            yield from (f"- `{code}`: {meaning}" for code, _, meaning in (entry.partition(" ") for entry in codes))
        elif rest.startswith("  "):
            # The text after a command and several spaces explains the command.
            lines = [re.sub(r"(?<=\S)( +)  (?=[^#\s])", r"\1# ", line.removeprefix("  ")) for line in rest.splitlines()]
            yield from ("", heading[:1].upper() + heading[1:], "", "```sh", *lines, "```")
        elif part:
            yield from ("", *sentences(mark_literals(part)))


# Events, error messages and values of the chart


def render_events(_before: str) -> Iterator[str]:
    """Yield a table of all events of the log."""
    yield from ("| Event | Level | Meaning |", "| --- | --- | --- |")
    for event in Event:
        yield f"| `{event.code}` | {logging.getLevelName(event.level).lower()} | {event.meaning} |"


def render_attributes(_before: str) -> Iterator[str]:
    """Yield a table of the attributes that are read from /sys, by family."""
    yield from ("| Attribute | Value | Read from |", "| --- | --- | --- |")
    for family in FAMILIES:
        for name, attribute in family.attributes.items():
            origin = " or ".join(f"`{glob}`" for glob in expand_braces(attribute.origin) if glob)
            yield f"| `{name}` | {attribute.description} | {origin or 'the name of the directory'} |"


def render_diagnostics(before: str, name: str = "genplug.yaml") -> Iterator[str]:
    """Yield what ``genplug validate`` prints for the YAML block before the region."""
    *_, example = re.findall(r"^```yaml\n(.*?)^```$", before, re.DOTALL | re.MULTILINE)
    try:
        diagnostics = load_text(example, name).warnings
    except ConfigInvalidError as error:
        diagnostics = error.diagnostics
    if not diagnostics:
        raise ValueError(f"this example is valid, without warnings:\n{example}")
    yield from ("```text", *format_diagnostics(diagnostics).splitlines(), "```")


def render_limits(_before: str) -> Iterator[str]:
    """Yield a section with a table for each comment of ``genplug/spec/limits.py``, with the constants after it."""
    source = Path(limits.__file__).read_text()
    for heading, effect, constants in re.findall(
        r"^# ([^:\n]+): ([^\n]+)\n((?:(?!^# ).)*)", source, re.DOTALL | re.MULTILINE
    ):
        yield from ("", f"## {heading}", "", f"{effect[:1].upper()}{effect[1:]}", "")
        yield from ("| Bounded | Limit | Reason |", "| --- | --- | --- |")
        for name, text in re.findall(r'^(\w+) = [^\n]+\n"""(.*?)"""', constants, re.DOTALL | re.MULTILINE):
            bounded, _, reason = " ".join(text.split()).removesuffix(".").partition(": ")
            if not reason:
                raise ValueError(f"the docstring of {name} does not have the form 'what is bounded: the reason'")
            limit = f"{getattr(limits, name):,}".replace(",", " ")
            yield f"| {mark_literals(bounded)} | {limit} | {mark_literals(reason)} |"


def render_values(_before: str) -> Iterator[str]:
    """Yield a table of the values of the chart for each key of ``values.yaml``."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    properties = schema["properties"]
    flat = [key for key in properties if not isinstance(values.get(key), dict) or not values[key]]
    yield from ("", "## Top-level values", "")
    yield from _value_table({key: properties[key] for key in flat}, values, "", schema)
    for key, part in properties.items():
        if key not in flat:
            yield from ("", f"## `{key}`", "", *sentences(part["description"]), "")
            yield from _value_table(resolve(part, schema)[0]["properties"], values[key], f"{key}.", schema)
        if key == "pools":
            yield from ("", "## `pools.*`", "", "The keys of a pool:", "")
            yield from _value_table(schema["definitions"]["pool"]["properties"], {}, "pools.*.", schema)


def _value_table(properties: Schema, values: Mapping[str, Any], prefix: str, root: Schema) -> Iterator[str]:
    yield from ("| Value | Type | Default | Description |", "| --- | --- | --- | --- |")
    yield from _value_rows(properties, values, prefix, root)


def _value_rows(properties: Schema, values: Mapping[str, Any], prefix: str, root: Schema) -> Iterator[str]:
    for key, part in properties.items():
        schema, _ = resolve(part, root)
        default = values.get(key, schema.get("default"))
        if isinstance(default, dict) and default and set(default) <= set(schema.get("properties", ())):
            yield from _value_rows(schema["properties"], default, f"{prefix}{key}.", root)
            continue
        shown = f"`{json.dumps(default, ensure_ascii=False)}`" if key in values or default is not None else ""
        kind = type_text(schema, root, is_nullable=False)
        yield f"| `{prefix}{key}` | {kind} | {shown} | {part['description']} |"


def render_denied_nodes(_before: str, table: str) -> Iterator[str]:
    """Yield a table of the denied device nodes, with what identifies them."""
    yield from ("| Entry | What it is | Recognized by |", "| --- | --- | --- |")
    for entry in {"host": EXPOSES_HOST, "storage": ACCESSES_STORAGE}[table]:
        name = f"`{entry.name}`" if entry.name.startswith("/") else entry.name
        yield f"| {name} | {entry.what} | {'; '.join(_list_marks(entry))} |"


SPECIAL_MARKS = {
    "active console": "name in `/sys/class/tty/console/active`",
    "USB storage": "interface of class `08` in `/sys`",
}


def _list_marks(entry: DeniedNode) -> Iterator[str]:
    if entry.numbers:
        yield "number " + ", ".join(_join_numbers(entry))
    if entry.subsystems:
        yield "subsystem " + ", ".join(f"`{name}`" for name in sorted(entry.subsystems))
    if entry.drivers:
        yield "driver " + ", ".join(f"`{name}`" for name in sorted(entry.drivers))
    if entry.names:
        yield f"name `{entry.names}`".replace("|", "\\|")
    if entry.name in SPECIAL_MARKS:
        yield SPECIAL_MARKS[entry.name]


def render_denied_variables(_before: str) -> Iterator[str]:
    """Yield a table of the denied environment variables."""
    yield from ("| Variables | Reason |", "| --- | --- |")
    for variables in DENIED_VARIABLES:
        names = ", ".join(f"`{name}`" for name in variables.names)
        yield f"| {names}{' in upper or lower case' if variables.is_any_case else ''} | It {variables.effect}. |"


def render_runtime_devices(_before: str) -> Iterator[str]:
    """Yield a table of the variables that name devices for a container runtime, with the device nodes."""
    yield from ("| Variable | Device nodes |", "| --- | --- |")
    for name, alternatives in RUNTIME_DEVICES.items():
        yield f"| `{name}` | {' or '.join(map(_join_nodes, alternatives))} |"


def _join_nodes(nodes: tuple[str, ...]) -> str:
    """Return device nodes whose names end with consecutive numbers, and nodes without a number, as text."""
    numbered = [node for node in nodes if re.search(r"\d\Z", node)]
    named = "".join(f"`{node}`, " for node in nodes if node not in numbered)
    return f"{named}`{numbered[0]}` to `{numbered[-1]}`"


def _join_numbers(entry: DeniedNode) -> Iterator[str]:
    """Yield the numbers of an entry; consecutive majors are a range."""
    majors = [major for major, minors in entry.numbers if minors == ANY_MINOR]
    while majors:
        last = next(number for number in range(majors[0], majors[-1] + 1) if number + 1 not in majors)
        yield str(last) if majors[0] == last else f"{majors[0]} to {last}"
        majors = [major for major in majors if major > last]
    for major, minors in entry.numbers:
        if minors != ANY_MINOR:
            yield f"{major}:{minors[0]}" + (f" to {major}:{minors[-1]}" if len(minors) > 1 else "")


def render_checks(_before: str) -> Iterator[str]:
    """Yield a section with a table for each group of checks of ``genplug doctor``."""
    for group in dict.fromkeys(check.group for check in CHECKS):
        yield from ("", f"## {group.capitalize()}", "", "| Check | Examines | Why it matters |", "| --- | --- | --- |")
        for check in CHECKS:
            if check.group == group:
                yield f"| `{check.name}` | {mark_literals(check.title)} | {mark_literals(check.why)} |"


def render_contract_points(_before: str) -> Iterator[str]:
    """Yield a table of the points of the kubelet contract with the tests of each."""
    tests = find_numbered_tests()
    yield from ("| Point | Stimulus and outcome | Tests |", "| --- | --- | --- |")
    for number, text in read_points().items():
        names = [f"`{name}`" for name in tests.get(number, [])]
        held_by = ", ".join(names) or f"No test has this number: {POINTS_WITHOUT_TEST[number]}."
        yield f"| {number} | {text.replace('|', chr(92) + '|')} | {held_by} |"


def render_attacks(_before: str) -> Iterator[str]:
    """Yield a section with a table for each adversary whose attacks the tests try."""
    attacks = load_attacks()
    for adversary in dict.fromkeys(attack.adversary for attack in attacks):
        yield from ("", f"## {adversary[0].upper()}{adversary[1:]}", "")
        yield from ("| Attack | Stopped by | Tests |", "| --- | --- | --- |")
        for attack in attacks:
            if attack.adversary == adversary:
                names = ", ".join(f"`{name}`" for name in attack.tests)
                yield f"| {attack.tried} | {attack.stopped_by} | {names} |"


GENERATORS: Mapping[str, Callable[..., Iterable[str]]] = {
    "attacks": render_attacks,
    "attributes": render_attributes,
    "checks": render_checks,
    "commands": render_commands,
    "contract-points": render_contract_points,
    "denied-nodes": render_denied_nodes,
    "denied-variables": render_denied_variables,
    "runtime-devices": render_runtime_devices,
    "diagnostics": render_diagnostics,
    "events": render_events,
    "key-table": render_key_table,
    "keys": render_keys,
    "kubectl-commands": render_kubectl_commands,
    "kubectl-options": render_kubectl_options,
    "limits": render_limits,
    "record": render_record,
    "values": render_values,
}

if __name__ == "__main__":
    sys.exit(main())
