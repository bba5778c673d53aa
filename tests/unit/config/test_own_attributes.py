"""Attributes that a source defines and its ``sysfs``: what they may be called, made of and looked for with."""

import pytest

from genplug.config.diagnostics import ErrorCode
from genplug.hardware.attributes import ATTRIBUTES, KNOWN_ATTRIBUTES
from genplug.spec.model import CustomAttribute
from tests.support.configs import find_codes, find_problems, load_resource, render_config


def source(attributes: str, more: str = "type: any") -> str:
    """Return a resource whose source defines attributes."""
    return f"devices: [{{glob: /dev/x, attributes: {{{attributes}}}, {more}}}]"


def own(attributes: str) -> CustomAttribute:
    """Return the last of the attributes."""
    return load_resource(source(attributes)).sources[0].attributes[-1]


def said(body: str) -> list[tuple[ErrorCode, str, str]]:
    """Return the codes and messages of what is wrong, and the text that each points at."""
    return [
        (one.code, one.message, one.line[one.location.column - 1 :][: one.width])
        for one in find_problems(render_config(body))
    ]


def test_of_an_own_attribute_only_the_path_is_needed() -> None:
    found = own("a: {path: /x/*}")
    assert (found.name, found.path.text, found.find, found.use_dir_name, found.collect_all) == (
        "a",
        "/x/*",
        None,
        False,
        False,
    )
    assert (found.names, str(found.location)) == (frozenset(), "c.yaml:5:43")


@pytest.mark.parametrize(("written", "is_taken"), [("", False), ("false", False), ("true", True)])
def test_the_directory_and_all_matches_are_taken_where_that_is_said(written: str, *, is_taken: bool) -> None:
    asked = f", dir: {written}, all: {written}" if written else ""
    found = own(f"a: {{path: /x{asked}}}")
    assert (found.use_dir_name, found.collect_all) == (is_taken, is_taken)


def test_an_own_attribute_is_made_of_what_its_path_and_its_expression_name() -> None:
    found = own("b: {path: /x}, a: {path: '/x/${b}/${name}', find: '${minor}:${env.A|default:x}'}")
    assert found.names == {"b", "name", "minor", "env.A"}


@pytest.mark.parametrize("name", [*KNOWN_ATTRIBUTES, "attr.x", "attr.x.y", "env.X", "slice"])
def test_no_own_attribute_has_a_name_of_the_language(name: str) -> None:
    assert said(source(f"{name}: {{path: /x}}")) == [
        (ErrorCode.NAME, f"{name!r} is a built-in attribute", name),
    ]


@pytest.mark.parametrize("name", ["a", "_a", "A1", "gpu.uuid", "a-b_c", "attr", "pci", "pci.speed", "slices"])
def test_an_own_attribute_may_be_called_what_a_template_can_name(name: str) -> None:
    assert load_resource(f"{source(f'{name}: {{path: /x}}')}\nallocate: {{env: {{A: '${{{name}}}'}}}}").allocate.env


@pytest.mark.parametrize("name", ["1a", "a b", "ä", "a|b", ".a", "-a", "a}"])
def test_an_own_attribute_is_not_called_what_no_template_can_name(name: str) -> None:
    assert said(source(f"'{name}': {{path: /x}}")) == [
        (ErrorCode.NAME, f"{name!r} is not a valid attribute name", f"'{name}'"[: len(name)]),
    ]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("{path: x}", ErrorCode.PATH),
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
        ("/x", ErrorCode.WRONG_TYPE),
        ("null", ErrorCode.WRONG_TYPE),
    ],
)
def test_an_own_attribute_that_could_find_nothing_is_refused(attribute: str, expected: ErrorCode) -> None:
    assert find_codes(source(f"a: {attribute}")) == [expected]


@pytest.mark.parametrize("find", ["(", "(?=x)", "(?!x)", r"(a)\1", "x**", "[${minor}", "${minor}("])
def test_an_expression_that_re2_does_not_read_is_refused(find: str) -> None:
    ((code, message, at),) = said(source(f"a: {{path: /x, find: '{find}'}}"))
    assert (code, at) == (ErrorCode.SELECTOR, find)
    assert message.startswith(f"{find!r} is not a regular expression: ")


@pytest.mark.parametrize("find", [r"Minor:\s*${minor}\b", "[a-z${minor}]", "${minor}{2}", "(${path}|${name})$", "$"])
def test_an_expression_may_hold_templates_wherever_a_text_can_stand(find: str) -> None:
    assert own(f"a: {{path: /x, find: '{find}'}}").find is not None


@pytest.mark.parametrize(
    ("attributes", "circles"),
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
        # One that leads into a circle and is not of it makes no second mistake.
        (
            "z: {path: '/${a}'}, a: {path: '/${b}'}, b: {path: '/${a}'}",
            ["'a' depends on 'b', which depends on 'a'", "'b' depends on 'a', which depends on 'b'"],
        ),
        ("a: {path: '/${b}/${c}'}, b: {path: '/${c}'}, c: {path: /x}", []),
    ],
)
def test_own_attributes_in_a_circle_are_refused_with_the_way_round(attributes: str, circles: list[str]) -> None:
    assert [message for code, message, _ in said(source(attributes)) if code is ErrorCode.CONFLICT] == circles


def test_the_order_in_which_own_attributes_are_written_does_not_matter() -> None:
    assert not find_codes(source("uuid: {path: '/proc/${bdf}'}, bdf: {path: '/x/${minor}'}"))


def test_two_sources_may_define_one_name_each_in_its_own_way() -> None:
    one = "{glob: /dev/x, attributes: {a: {path: /x}}, id: '${a}'}"
    first, second = load_resource(f"devices: [{one}, {one.replace('/x', '/y')}]\nslices: '${{a}}'").sources
    assert [source.attributes[0].path.text for source in (first, second)] == ["/x", "/y"]


def test_a_slip_in_an_own_attributes_name_is_told_with_the_name_that_is_meant() -> None:
    (problem,) = find_problems(render_config(source("serial: {path: /x}", "id: '${serail}'")))
    assert problem.hint == "did you mean 'serial'?"


# sysfs


@pytest.mark.parametrize(
    "location", ["/sys/class/x", "/sys/${name}", "${path}", "/sys/${minor}", "/sys/${env.A}/${node.name}", "/sys/${a}"]
)
def test_the_place_in_sys_is_made_of_what_is_known_without_it(location: str) -> None:
    (found,) = load_resource(source("a: {path: '/proc/${minor}'}", f"sysfs: '{location}'")).sources
    assert found.sysfs is not None
    assert found.sysfs.text == location


@pytest.mark.parametrize("name", [*ATTRIBUTES, "attr.uevent"])
def test_the_place_in_sys_is_not_made_of_what_is_read_there(name: str) -> None:
    assert said(source("a: {path: /x}", f"sysfs: '/sys/${{{name}}}'")) == [
        (ErrorCode.CONFLICT, f"{name!r} is read from the directory that 'sysfs' defines", name),
    ]


def test_the_place_in_sys_is_not_made_of_own_attributes_that_are_read_there() -> None:
    attributes = "a: {path: '/x/${b}'}, b: {path: /x, find: '${pci.address}'}, c: {path: /x}"
    assert said(source(attributes, "sysfs: '/sys/${c}/${a}'")) == [
        (
            ErrorCode.CONFLICT,
            "'a' depends on 'pci.address', which is read from the directory that 'sysfs' defines",
            "a",
        ),
    ]


@pytest.mark.parametrize("location", ["x", "${name}", "/sys/../x"])
def test_the_place_in_sys_is_an_absolute_path(location: str) -> None:
    assert find_codes(source("a: {path: /x}", f"sysfs: '{location}'")) == [ErrorCode.PATH]
