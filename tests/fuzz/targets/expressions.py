"""Templates, globs, regular expressions, selectors and addresses: the texts in a configuration."""

import fnmatch
import re

from genplug.hardware.attribute_names import is_known_attribute
from genplug.health.value_check import NotANumberError, parse_number, shorten
from genplug.spec.connect_rules import ConnectEntry, parse_address
from genplug.spec.globs import Glob, GlobError, escape_glob, expand_braces, has_magic
from genplug.spec.limits import (
    MAX_EXPANDED_CHARACTERS,
    MAX_FILTERS,
    MAX_GLOB_ALTERNATIVES,
    MAX_RENDERED_CHARACTERS,
    MAX_VALUE_COMBINATIONS,
)
from genplug.spec.names import annotation_key_error, cdi_device_error, env_name_error, resource_name_error
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.regex import PatternError, compile_regex, matched_value, render_regexes
from genplug.spec.selectors import Selector, parse_quantity
from genplug.spec.template import FILTERS, RenderError, Template, TemplateError, merge_values
from tests.fuzz.parts import join_parts, split_parts, word_mutator
from tests.fuzz.target import Target

_NAMES = ("path", "name", "pci.address", "a", "b", "env.X", "missing")


def _decode(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def run_template(content: bytes) -> None:
    """Parse a template and render it for a device of two members; the second part has their values."""
    text, values = split_parts(content, 2)
    template = Template.parse(_decode(text))
    assert "".join(template.names) or not template.references
    lines = [tuple(line.split("\t")) for line in _decode(values).split("\n")][: 2 * len(_NAMES)]
    first = {name: line for name, line in zip(_NAMES, lines, strict=False) if line != ("",)}
    second = {name: line for name, line in zip(_NAMES, lines[len(_NAMES) :], strict=False) if line != ("",)}
    for attributes in ({}, first, merge_values([first, second])):
        try:
            assert len(template.render(attributes)) <= MAX_RENDERED_CHARACTERS
            texts = template.render_each(attributes)
            assert len(texts) <= MAX_VALUE_COMBINATIONS
            assert len(set(texts)) == len(texts)
        except RenderError as error:
            assert error.describe("the device")
        try:
            for pattern in render_regexes(template, attributes):
                pattern.search("NVRM: Xid 79")
        except (RenderError, PatternError) as error:
            assert str(error)


def list_templates() -> list[bytes]:
    values = b"/dev/x0\nx0\n0000:01:00.0\t0000:02:00.0\nA b\n7\n\n"
    texts = (
        *("", "text", "$${a}", "${path}", "${path|basename|upper}", "${missing|default:x}", "${missing|or:a|or:b}"),
        *(
            "${pci.address|replace:0000:|lower}",
            "${a|quote}-${b|pad:4}",
            "${pci.address|join:,}",
            "${pci.address|count}",
        ),
        *("${pci.address|json}", "${pci.address|first|dirname}", "${b|gib}", "${a|unique}", "NVRM.*${pci.address}[^0]"),
        "".join(("${name", *["|replace:x:xxxx"] * MAX_FILTERS, "}")),
    )
    return [join_parts(text.encode(), values) for text in texts]


def run_glob(content: bytes) -> None:
    """Parse a glob, and match it with paths; the second part has a path on each line."""
    text, paths = split_parts(content, 2)
    pattern = _decode(text)
    glob = Glob.parse(pattern)
    assert 1 <= len(glob.alternatives) <= MAX_GLOB_ALTERNATIVES
    assert sum(map(len, expand_braces(pattern))) <= max(MAX_EXPANDED_CHARACTERS, len(pattern))
    for path in _decode(paths).split("\n")[:8]:
        if glob.matches(path):
            parent = path.rstrip("/").rpartition("/")[0]
            assert not parent or glob.may_match_below(parent), (pattern, path)
        escaped = escape_glob(path)
        assert has_magic(escaped) == any(character in path for character in "[*?{},")
    if "{" not in pattern and "**" not in pattern:
        check_against_fnmatch(glob, pattern, _decode(paths).split("\n")[:8])


def check_against_fnmatch(glob: Glob, pattern: str, paths: list[str]) -> None:
    """Assert that a glob without braces matches like a comparison name by name."""
    names = [name for name in pattern.split("/") if name not in {"", "."}]
    for path in paths:
        parts = [part for part in path.split("/") if part]
        expected = len(parts) == len(names) and all(
            (part == name if not re.search("[*?[]", name) else fnmatch.fnmatchcase(part, name))
            and (not part.startswith(".") or name.startswith("."))
            for part, name in zip(parts, names, strict=True)
        )
        assert glob.matches(path) == expected, (pattern, path)


def list_globs() -> list[bytes]:
    paths = b"/dev/nvidia0\n/dev/dri/renderD128\n/sys/class/net/eth0/device\n/dev/.x\n/a/b/c/d"
    texts = (
        *(
            "/dev/nvidia[0-9]*",
            "/dev/{dri/renderD*,kfd}",
            "/sys/class/net/*/device",
            "/dev/**",
            "/dev/**/x",
            "/dev/x{0..9}",
        ),
        *(
            "/dev/[!a]?",
            "/dev/[[]x]",
            "/a/**/d",
            "/**",
            "{/a,/b}/*",
            "/dev/x{00..0f}",
            "/dev/{a..z}{a..z}",
            "/dev/x{1..1000}",
        ),
    )
    return [join_parts(text.encode(), paths) for text in texts]


def run_regex(content: bytes) -> None:
    """Compile a regular expression, and search for it in a text, which is the second part."""
    expression, text = split_parts(content, 2)
    pattern = compile_regex(_decode(expression))
    subject = _decode(text)
    match = pattern.search(subject)
    if match is not None:
        matched_value(match, pattern)
        for found in pattern.finditer(subject):
            matched_value(found, pattern)
    selector = Selector(matches=pattern)
    assert selector.accepts((subject,)) == (match is not None)
    shorten(subject, 20)


def list_regexes() -> list[bytes]:
    texts = (
        *(
            "NVRM: Xid .*: (79|119)",
            "(?P<value>[0-9]+)",
            "^a*b+$",
            "(?i)error|fail",
            r"\bx\b",
            "[[:alpha:]]+",
            "a{2,100}",
        ),
        *(r"\pL+", "(a*)*", "(?s).*", "()", "x" * 200, "(?P<value>)|(b)"),
    )
    return [join_parts(text.encode(), b"NVRM: Xid (PCI:0000:01:00): 79, aaab 12 error x") for text in texts]


def run_names(content: bytes) -> None:
    """Check texts that are names, numbers and addresses; each of these functions returns an error, and raises none."""
    text = _decode(content)
    for check in (resource_name_error, env_name_error, annotation_key_error, cdi_device_error):
        assert isinstance(check(text), str)
    assert isinstance(is_known_attribute(text), bool)
    parse_quantity(text)
    try:
        parse_number(text)
    except NotANumberError as error:
        assert str(error)
    assert natural_sort_key(text) == natural_sort_key(text)
    address = parse_address(text)
    try:
        entry = ConnectEntry.parse(text)
    except ValueError as error:
        assert str(error)
    else:
        if address is not None:
            entry.allows(text, address, 80)
    Selector(any_of=(text[:100],), minimum=1.0).accepts((text, "1"))


def list_names() -> list[bytes]:
    texts = (
        *(
            "nvidia.com/gpu",
            "LD_PRELOAD",
            "example.com/a.b-c",
            "vendor.example/class=name",
            "64Gi",
            "1e400",
            "0x1f",
            "-5.5k",
        ),
        *(
            "127.0.0.1:80",
            "[::1]:9400",
            "10.0.0.0/8",
            "*.example:443",
            "0x7f.1",
            "2130706433",
            "::ffff:1.2.3.4",
            "fe80::1%eth0",
        ),
        *("pci.address", "env.X", "9" * 50, "renderD128", "٣", "²"),
    )
    return [text.encode() for text in texts]


_TEMPLATE_WORDS = (
    "${",
    "}",
    "$${",
    "|",
    ":",
    *_NAMES,
    *sorted(FILTERS),
    "|replace:a:bb",
    "|pad:64",
    "|default:",
    "|or:b",
    "\t",
    "\n",
)
_GLOB_WORDS = (
    "/",
    "*",
    "**",
    "/**/",
    "?",
    "[",
    "]",
    "[!",
    "{",
    "}",
    ",",
    "{a,b}",
    "..",
    "{0..9}",
    "-",
    ".",
    "/dev/",
    "^",
    "\\",
)
_REGEX_WORDS = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{1000}",
        "{1,}",
        "*",
        "+",
        "?",
        "|",
        "^",
        "$",
        ".",
        "\\",
        "\\b",
        "\\d",
        "\\pL",
        "(?P<value>",
    ),
    *("(?i)", "(?s)", "[^", "[[:alpha:]]", "\\C", "\\Q", "\\x{10ffff}", "(?:"),
)

TARGETS = (
    Target(
        "template",
        "templates",
        run_template,
        list_templates,
        allowed=(TemplateError,),
        max_bytes=1024,
        words=_TEMPLATE_WORDS,
        mutate=word_mutator(*_TEMPLATE_WORDS),
    ),
    Target(
        "glob",
        "globs",
        run_glob,
        list_globs,
        allowed=(GlobError,),
        words=_GLOB_WORDS,
        max_bytes=512,
        mutate=word_mutator(*_GLOB_WORDS),
    ),
    Target(
        "regex",
        "regular expressions",
        run_regex,
        list_regexes,
        allowed=(PatternError,),
        words=_REGEX_WORDS,
        max_bytes=512,
        mutate=word_mutator(*_REGEX_WORDS),
    ),
    Target(
        "names",
        "names, numbers and addresses",
        run_names,
        list_names,
        words=("/", ".", "=", ":", "-", "0x", "e", "Ki", "Gi", "::", "[", "]", "%", "*", "٣", "²", "64Gi", "/8"),
        max_bytes=512,
    ),
)
