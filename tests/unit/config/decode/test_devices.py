"""Sources of devices: candidate types, device nodes, custom attributes and ``sysfs``."""

import pytest

from genplug.hardware.attributes import ATTRIBUTES, KNOWN_ATTRIBUTES
from genplug.spec.diagnostic import DiagnosticCode, ErrorCode
from genplug.spec.model import CandidateType, CustomAttribute, NodeAccess
from tests.support.configs import find_codes, find_diagnostics, load_resource, marked_text, render_config

TYPES = {
    "{glob: /dev/x}": CandidateType.DEVICE,
    "{glob: '/{dev,dev}/x'}": CandidateType.DEVICE,
    "{glob: [/dev/x, /dev/**]}": CandidateType.DEVICE,
    "{glob: /dev/x, type: block}": CandidateType.BLOCK,
    "{glob: /sys/class/x/*, nodes: ['/dev/${name}']}": CandidateType.ANY,
    "{glob: [/dev/x, /sys/x], nodes: ['/dev/${name}']}": CandidateType.ANY,
    "{glob: /dev/bus/usb/*, type: directory, nodes: ['${path}/*']}": CandidateType.DIRECTORY,
    "{glob: /sys/x, type: char}": CandidateType.CHAR,
}


@pytest.mark.parametrize(("source", "kind"), TYPES.items(), ids=TYPES)
def test_candidate_type_follows_from_globs_and_nodes(source: str, kind: CandidateType) -> None:
    assert load_resource(f"devices: [{source}]").sources[0].type is kind


@pytest.mark.parametrize(
    "source", ["{glob: /sys/x}", "{glob: '{/dev/a,/sys/b}'}", "{glob: /dev/x, type: any, nodes: []}"]
)
def test_source_without_nodes_is_valid(source: str) -> None:
    assert load_resource(f"devices: [{source}]").sources[0].nodes == ()


@pytest.mark.parametrize(("written", "expected"), [("r", "r"), ("w", "w"), ("wr", "rw"), ("mwr", "rwm"), ("rm", "rm")])
def test_permissions_are_sorted(written: str, expected: str) -> None:
    (source,) = load_resource(f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, permissions: {written}}}]}}]").sources
    (node,) = source.nodes
    assert node.permissions == expected


@pytest.mark.parametrize("written", ["x", "''", "rwrw", "rr", "rwx", "RW", "r w", "5", "true", "[r]"])
def test_57_invalid_permissions_are_rejected(written: str) -> None:
    for key in ("nodes", "with"):
        (code,) = find_codes(f"devices: [{{glob: /dev/x, {key}: [{{path: /dev/x, permissions: {written}}}]}}]")
        assert code in {ErrorCode.WRONG_VALUE, ErrorCode.WRONG_TYPE}


def render_source(attributes: str, more: str = "type: any") -> str:
    """Return the body of a resource whose source defines attributes."""
    return f"devices: [{{glob: /dev/x, attributes: {{{attributes}}}, {more}}}]"


def load_attribute(attributes: str) -> CustomAttribute:
    """Return the last of the custom attributes."""
    return load_resource(render_source(attributes)).sources[0].attributes[-1]


def describe_diagnostics(body: str) -> list[tuple[DiagnosticCode, str, str]]:
    """Return the code, the message and the marked text of each error."""
    return [
        (diagnostic.code, diagnostic.message, marked_text(diagnostic))
        for diagnostic in find_diagnostics(render_config(body))
    ]


def test_custom_attribute_needs_only_a_path() -> None:
    found = load_attribute("a: {path: /x/*}")
    assert (found.name, found.paths[0].text, found.find, found.use_dir_name, found.collect_all) == (
        "a",
        "/x/*",
        None,
        False,
        False,
    )
    assert (found.names, str(found.location)) == (frozenset(), "c.yaml:5:43")


@pytest.mark.parametrize(("written", "expected"), [("", False), ("false", False), ("true", True)])
def test_options_of_a_custom_attribute_are_false_by_default(written: str, *, expected: bool) -> None:
    options = f", dir: {written}, all: {written}" if written else ""
    found = load_attribute(f"a: {{path: /x{options}}}")
    assert (found.use_dir_name, found.collect_all) == (expected, expected)


def test_custom_attribute_depends_on_names_in_its_path_and_regex() -> None:
    found = load_attribute("b: {path: /x}, a: {path: '/x/${b}/${name}', find: '${minor}:${env.A|default:x}'}")
    assert found.names == {"b", "name", "minor", "env.A"}


@pytest.mark.parametrize("name", [*KNOWN_ATTRIBUTES, "attr.x", "attr.x.y", "env.X", "slice"])
def test_custom_attribute_with_a_built_in_name_is_rejected(name: str) -> None:
    assert describe_diagnostics(render_source(f"{name}: {{path: /x}}")) == [
        (ErrorCode.NAME, f"{name!r} is a built-in attribute", name),
    ]


@pytest.mark.parametrize("name", ["a", "_a", "A1", "gpu.uuid", "a-b_c", "attr", "pci", "pci.speed", "slices"])
def test_custom_attribute_name_can_be_used_in_a_template(name: str) -> None:
    body = render_source(f"{name}: {{path: /x}}")
    assert load_resource(f"{body}\nallocate: {{env: {{A: '${{{name}}}'}}}}").allocate.env


@pytest.mark.parametrize("name", ["1a", "a b", "ä", "a|b", ".a", "-a", "a}"])
def test_invalid_custom_attribute_name_is_rejected(name: str) -> None:
    assert describe_diagnostics(render_source(f"'{name}': {{path: /x}}")) == [
        (ErrorCode.NAME, f"{name!r} is not a valid attribute name", f"'{name}'"[: len(name)]),
    ]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("{path: x}", ErrorCode.PATH),
        ("{path: '/${b}'}", ErrorCode.UNKNOWN_ATTRIBUTE),
        ("{path: '${name}/x'}", ErrorCode.PATH),
        ("{path: /x/../y}", ErrorCode.PATH),
        ("{path: '/x/[${minor}'}", ErrorCode.GLOB),
        ("{path: '/x/**y'}", ErrorCode.GLOB),
        ("{path: ''}", ErrorCode.WRONG_VALUE),
        ("{find: x}", ErrorCode.MISSING_KEY),
        ("{path: /x, find: ''}", ErrorCode.WRONG_VALUE),
        ("{path: /x, fnd: x}", ErrorCode.UNKNOWN_KEY),
        ("{path: /x, all: yes}", ErrorCode.WRONG_TYPE),
        ("{path: /x, find: '${nme}'}", ErrorCode.UNKNOWN_ATTRIBUTE),
        ("{path: /x, find: '${name'}", ErrorCode.TEMPLATE),
        ("{path: []}", ErrorCode.WRONG_VALUE),
        ("{path: [/x, y]}", ErrorCode.PATH),
        ("{path: [/x, '${nme}']}", ErrorCode.UNKNOWN_ATTRIBUTE),
        ("{value: '${nme}'}", ErrorCode.UNKNOWN_ATTRIBUTE),
        ("{value: ['${name}', '${name']}", ErrorCode.TEMPLATE),
        ("{value: ''}", ErrorCode.WRONG_VALUE),
        ("{value: x, path: /x}", ErrorCode.CONFLICT),
        ("{value: x, dir: true}", ErrorCode.CONFLICT),
        ("{all: true}", ErrorCode.MISSING_KEY),
        ("/x", ErrorCode.WRONG_TYPE),
        ("null", ErrorCode.WRONG_TYPE),
    ],
)
def test_invalid_custom_attribute_is_reported_once(attribute: str, expected: ErrorCode) -> None:
    assert find_codes(render_source(f"a: {attribute}")) == [expected]


@pytest.mark.parametrize("find", ["(", "(?=x)", "(?!x)", r"(a)\1", "x**", "[${minor}", "${minor}("])
def test_invalid_regex_of_a_custom_attribute_is_rejected(find: str) -> None:
    ((code, message, at),) = describe_diagnostics(render_source(f"a: {{path: /x, find: '{find}'}}"))
    assert (code, at) == (ErrorCode.SELECTOR, find)
    assert message.startswith(f"{find!r} is not a regular expression: ")


@pytest.mark.parametrize("find", [r"Minor:\s*${minor}\b", "[a-z${minor}]", "${minor}{2}", "(${path}|${name})$", "$"])
def test_regex_of_a_custom_attribute_can_contain_templates(find: str) -> None:
    assert load_attribute(f"a: {{path: /x, find: '{find}'}}").find is not None


@pytest.mark.parametrize(
    ("attributes", "messages"),
    [
        ("a: {path: '/${a}'}", ["'a' depends on 'a'"]),
        ("a: {path: /x, find: '${a}'}", ["'a' depends on 'a'"]),
        (
            "a: {path: '/${b}'}, b: {path: /x, find: '${c}'}, c: {path: '/${a}'}",
            [
                "'a' depends on 'b', which depends on 'c', which depends on 'a'",
                "'b' depends on 'c', which depends on 'a', which depends on 'b'",
                "'c' depends on 'a', which depends on 'b', which depends on 'c'",
            ],
        ),
        # An attribute that refers to a cycle without being part of it is not reported.
        (
            "z: {path: '/${a}'}, a: {path: '/${b}'}, b: {path: '/${a}'}",
            ["'a' depends on 'b', which depends on 'a'", "'b' depends on 'a', which depends on 'b'"],
        ),
        ("a: {path: '/${b}/${c}'}, b: {path: '/${c}'}, c: {path: /x}", []),
        ("a: {value: ['${name}', '${name|or:a}']}", ["'a' depends on 'a'"]),
    ],
)
def test_cycle_of_custom_attributes_is_reported_with_its_path(attributes: str, messages: list[str]) -> None:
    found = describe_diagnostics(render_source(attributes))
    assert [message for code, message, _ in found if code is ErrorCode.CONFLICT] == messages


def render_chain(length: int) -> str:
    return ", ".join(f"a{number}: {{value: '${{a{number + 1}}}'}}" for number in range(1, length)) + (
        f", a{length}: {{value: x}}"
    )


def test_chain_of_custom_attributes_has_a_limited_length() -> None:
    assert not find_codes(render_source(render_chain(32)))
    assert describe_diagnostics(render_source(render_chain(33))) == [
        (ErrorCode.WRONG_VALUE, "'a1' ends a chain of 33 attributes, at most 32 are allowed", "a1"),
    ]


def test_number_of_custom_attributes_is_limited() -> None:
    attributes = ", ".join(f"a{number}: {{value: x}}" for number in range(101))
    assert describe_diagnostics(render_source(attributes)) == [
        (ErrorCode.WRONG_VALUE, "101 custom attributes, at most 100 are allowed in an entry", "a100"),
    ]


def test_custom_attribute_can_refer_to_a_later_attribute() -> None:
    assert not find_codes(render_source("uuid: {path: '/proc/${bdf}'}, bdf: {path: '/x/${minor}'}"))


def test_sources_can_define_the_same_attribute_differently() -> None:
    entry = "{glob: /dev/x, attributes: {a: {path: /x}}, id: '${a}'}"
    first, second = load_resource(f"devices: [{entry}, {entry.replace('/x', '/y')}]\nslices: '${{a}}'").sources
    assert [source.attributes[0].paths[0].text for source in (first, second)] == ["/x", "/y"]


def test_misspelled_custom_attribute_gets_a_suggestion() -> None:
    (diagnostic,) = find_diagnostics(render_config(render_source("serial: {path: /x}", "id: '${serail}'")))
    assert diagnostic.hint == "did you mean 'serial'?"


@pytest.mark.parametrize(
    "location", ["/sys/class/x", "/sys/${name}", "${path}", "/sys/${minor}", "/sys/${env.A}/${node.name}", "/sys/${a}"]
)
def test_sysfs_can_refer_to_attributes_that_do_not_need_it(location: str) -> None:
    (found,) = load_resource(render_source("a: {path: '/proc/${minor}'}", f"sysfs: '{location}'")).sources
    assert found.sysfs is not None
    assert found.sysfs.text == location


@pytest.mark.parametrize("name", [*ATTRIBUTES, "attr.uevent"])
def test_sysfs_with_an_attribute_that_is_read_there_is_rejected(name: str) -> None:
    assert describe_diagnostics(render_source("a: {path: /x}", f"sysfs: '/sys/${{{name}}}'")) == [
        (ErrorCode.CONFLICT, f"{name!r} is read from the directory that 'sysfs' defines", name),
    ]


def test_sysfs_with_an_indirect_reference_to_itself_is_rejected() -> None:
    attributes = "a: {path: '/x/${b}'}, b: {path: /x, find: '${pci.address}'}, c: {path: /x}"
    assert describe_diagnostics(render_source(attributes, "sysfs: '/sys/${c}/${a}'")) == [
        (
            ErrorCode.CONFLICT,
            "'a' depends on 'pci.address', which is read from the directory that 'sysfs' defines",
            "a",
        ),
    ]


@pytest.mark.parametrize("location", ["x", "${name}", "/sys/../x"])
def test_sysfs_must_be_an_absolute_path(location: str) -> None:
    assert find_codes(render_source("a: {path: /x}", f"sysfs: '{location}'")) == [ErrorCode.PATH]


def test_custom_attributes_are_available_in_source_and_resource() -> None:
    body = """
devices:
- glob: /dev/x
  attributes:
    bdf: {path: /proc/gpus/*/information, find: 'Minor: ${minor}', dir: true}
    uuid: {path: "/proc/gpus/${bdf}/information", find: '(?P<value>GPU-.*)', all: true}
  sysfs: /sys/bus/pci/devices/${bdf}
  groupBy: ${uuid}
  where: {uuid: x}
allocate: {env: {UUID: "${uuid}"}}
preferredAllocation: {by: "${bdf}"}
"""
    (source,) = load_resource(body).sources
    bdf, uuid = source.attributes
    assert (bdf.name, bdf.use_dir_name, bdf.collect_all, bdf.names) == ("bdf", True, False, frozenset({"minor"}))
    assert (uuid.name, uuid.use_dir_name, uuid.collect_all, uuid.names) == ("uuid", False, True, frozenset({"bdf"}))
    assert source.sysfs is not None


def test_owner_group_and_mode_of_a_node_are_decoded() -> None:
    nodes = "nodes: [{path: /dev/x, owner: 0, group: 44, mode: '0660'}, {path: /dev/y, mode: 0600}, /dev/z]"
    found = load_resource(f"devices: [{{glob: '/dev/x*', {nodes}}}]\nallocate: {{inject: cdi}}")
    assert [node.access for node in found.sources[0].nodes] == [
        NodeAccess(owner=0, group=44, mode=0o660),
        NodeAccess(mode=0o600),
        NodeAccess(),
    ]


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ("owner: root", ErrorCode.WRONG_TYPE),
        ("owner: -1", ErrorCode.WRONG_VALUE),
        ("group: 4294967295", ErrorCode.WRONG_VALUE),
        ("group: true", ErrorCode.WRONG_TYPE),
        ("mode: 660", ErrorCode.WRONG_TYPE),
        ("mode: '0980'", ErrorCode.WRONG_VALUE),
        ("mode: '4755'", ErrorCode.WRONG_VALUE),
        ("mode: '0o660'", ErrorCode.WRONG_VALUE),
        ("mode: rw", ErrorCode.WRONG_VALUE),
    ],
)
def test_invalid_owner_group_or_mode_is_reported(keys: str, code: ErrorCode) -> None:
    body = f"devices: [{{glob: /dev/x, with: [{{path: /dev/y, {keys}}}]}}]\nallocate: {{inject: cdi}}"
    assert find_codes(body) == [code]


@pytest.mark.parametrize("inject", ["", "allocate: {inject: nodes}", "allocate: {env: {A: b}}"])
@pytest.mark.parametrize("part", ["nodes", "with"])
def test_owner_group_and_mode_without_cdi_are_reported(part: str, inject: str) -> None:
    for keys in ("owner: 1", "group: 1", "mode: '0660'", "mode: '0660', group: 44"):
        assert find_codes(f"devices: [{{glob: /dev/x, {part}: [{{path: /dev/y, {keys}}}]}}]\n{inject}") == [
            ErrorCode.CONFLICT
        ]
