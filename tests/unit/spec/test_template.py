"""Templates: the texts that they render, and the errors of invalid templates."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.spec.template import (
    LayeredValues,
    MissingAttributeError,
    RenderLimitError,
    Template,
    TemplateError,
    combine_values,
    distinct_values,
    merge_values,
)

VALUES = {
    "path": ("/dev/uverbs0", "/dev/umad0"),
    "name": ("uverbs0", "umad0"),
    "index": ("0",),
    "size": ("137438953472",),
    "empty": (),
    "hexadecimal": ("0x80000000",),
    "short": ("x0",),
    "digits": ("9" * 64,),
}
RENDERED = {
    "": "",
    "text": "text",
    "${index}": "0",
    "a${index}b${index}c": "a0b0c",
    "${path}": "/dev/uverbs0,/dev/umad0",
    "${path|join:;}": "/dev/uverbs0;/dev/umad0",
    "${path|join: }": "/dev/uverbs0 /dev/umad0",
    "${path|join:}": "/dev/uverbs0/dev/umad0",
    "${path|join::}": "/dev/uverbs0:/dev/umad0",
    "${path|first}": "/dev/uverbs0",
    "${path|count}": "2",
    "${name|replace:umad:uverbs|unique}": "uverbs0",
    "${path|dirname|unique}": "/dev",
    "${index|pad:3}": "000",
    "${name|pad:3}": "uverbs0,umad0",
    "${size|pad:3}": "137438953472",
    "${index|pad:1}": "0",
    "${index|pad:64}": "0" * 64,
    "${short|pad:3}": "x0",
    "${name|quote}": '"uverbs0","umad0"',
    "${missing|or:index}": "0",
    "${missing|or:gone|or:name|upper}": "UVERBS0,UMAD0",
    "${index|or:name}": "0",
    "${missing|or:gone|default:x}": "x",
    "${path|json}": '["/dev/uverbs0", "/dev/umad0"]',
    "${path|basename}": "uverbs0,umad0",
    "${path|dirname}": "/dev,/dev",
    "${path|dirname|first}": "/dev",
    "${name|upper}": "UVERBS0,UMAD0",
    "${name|upper|lower}": "uverbs0,umad0",
    "${name|replace:0:}": "uverbs,umad",
    "${path|replace:/dev/:x-}": "x-uverbs0,x-umad0",
    "${size|gib}": "128",
    "${hexadecimal|gib}": "2",
    "${digits|gib}": str(int("9" * 64) >> 30),
    "${name|gib}": "uverbs0,umad0",
    "${missing|default:none}": "none",
    "${missing|lower|default:None}": "None",
    "${missing|count|default:0}": "0",
    "${empty|default:x}": "x",
    "${empty}": "",
    "${empty|count}": "0",
    "${empty|first}": "",
    "${empty|unique|or:index}": "0",
    "${index|default:x:y}": "0",
    "${missing|default:x:y}": "x:y",
    "$${index}": "${index}",
    "$${index}${index}": "${index}0",
    "${index}$${index}": "0${index}",
    "$$": "$$",
    "$index {index}": "$index {index}",
    "a}b": "a}b",
}


@pytest.mark.parametrize(("text", "expected"), RENDERED.items())
def test_template_renders_values(text: str, expected: str) -> None:
    assert Template.parse(text).render(VALUES) == expected


NOT_CLOSED = ("'${' without a '}'", "write '$${' for a literal '${'")
FILTERS = (
    "valid filters: basename, count, default, dirname, first, gib, join, json, lower, or, pad, quote, replace, unique, "
    "upper"
)


def not_a_name(name: str, hint: str = "write ${name} or ${name|filter}") -> tuple[str, str]:
    return f"{name!r} is not an attribute name", hint


def count_error(name: str, expected: str, found: int, hint: str) -> tuple[str, str]:
    return f"filter {name!r}: expected {expected}, found {found}", hint


def width_error(found: str) -> tuple[str, str]:
    return f"filter 'pad': expected a width from 1 to 64, found {found!r}", "write pad:WIDTH"


INVALID = {
    "${": (0, *NOT_CLOSED),
    "ab${index": (2, *NOT_CLOSED),
    "}ab${index": (3, *NOT_CLOSED),
    "${}": (2, *not_a_name("")),
    "${1}": (2, *not_a_name("1")),
    "${ index}": (2, *not_a_name(" index")),
    "${in dex}": (2, *not_a_name("in dex")),
    "${index|}": (8, "unknown filter ''", FILTERS),
    "${index|sort}": (8, "unknown filter 'sort'", FILTERS),
    "${index|lower|sort}": (14, "unknown filter 'sort'", FILTERS),
    "${index|Lower}": (8, "unknown filter 'Lower'", FILTERS),
    "${index|lower:x}": (8, *count_error("lower", "no arguments", 1, "write lower alone")),
    "${index|unique:x}": (8, *count_error("unique", "no arguments", 1, "write unique alone")),
    "${index|replace}": (8, *count_error("replace", "2 arguments", 0, "write replace:OLD:NEW")),
    "${index|replace:a}": (8, *count_error("replace", "2 arguments", 1, "write replace:OLD:NEW")),
    "${index|replace:a:b:c}": (8, *count_error("replace", "2 arguments", 3, "write replace:OLD:NEW")),
    "${index|replace::b}": (8, "filter 'replace' has an empty text to replace", "write replace:OLD:NEW"),
    "${index|join}": (8, "filter 'join' requires a text after ':'", "write join:TEXT"),
    "${index|default}": (8, "filter 'default' requires a text after ':'", "write default:TEXT"),
    "${index|pad}": (8, *count_error("pad", "1 argument", 0, "write pad:WIDTH")),
    "${index|pad:}": (8, *width_error("")),
    "${index|pad:0}": (8, *width_error("0")),
    "${index|pad:65}": (8, *width_error("65")),
    "${index|pad:x}": (8, *width_error("x")),
    "${index|or}": (8, "filter 'or' requires an attribute after ':'", "write or:ATTRIBUTE"),
    "${index|or:}": (11, *not_a_name("", "write or:ATTRIBUTE")),
    "${index|or:1}": (11, *not_a_name("1", "write or:ATTRIBUTE")),
    "${index" + "|lower" * 17 + "}": (
        2,
        "${index|...} has 17 filters, at most 16 are allowed",
        "remove filters, or define a custom attribute with a part of them",
    ),
    "${index}" * 101: (
        800,
        "more than 100 references in a template",
        "divide the text, or define custom attributes with parts of it",
    ),
}


@pytest.mark.parametrize(("text", "error"), INVALID.items())
def test_invalid_template_is_rejected_at_its_error(text: str, error: tuple[int, str, str]) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert (caught.value.offset, str(caught.value), caught.value.hint) == error


def test_template_has_as_many_references_and_filters_as_the_limits_allow() -> None:
    assert Template.parse("${index}" * 100).render(VALUES) == "0" * 100
    assert Template.parse("${index" + "|lower" * 16 + "}").render(VALUES) == "0"


def test_missing_attribute_is_named_in_the_error() -> None:
    with pytest.raises(MissingAttributeError) as caught:
        Template.parse("a${missing|lower}").render(VALUES)
    assert caught.value.name == "missing"
    assert str(caught.value) == "${missing} has no value here"
    assert caught.value.describe("the device x0") == "refers to 'missing', which the device x0 does not have"


def test_reference_has_its_offset_in_the_template() -> None:
    template = Template.parse("$${a}${b|lower}x${c}")
    assert [(reference.name, reference.offset) for reference in template.references] == [("b", 7), ("c", 18)]
    assert template.names == {"b", "c"}


def test_filter_has_the_offset_of_its_first_argument() -> None:
    (reference,) = Template.parse("${a|lower|pad:3|replace:b:c|default:x|join:;}").references
    assert [(filter_.name, filter_.arguments, filter_.offset) for filter_ in reference.filters] == [
        ("lower", (), 10),
        ("pad", ("3",), 14),
        ("replace", ("b", "c"), 24),
        ("default", ("x",), 36),
        ("join", (";",), 43),
    ]


def test_reference_has_a_default_for_a_missing_value() -> None:
    texts = ("${a}", "${a|lower|or:b}", "${a|default:}", "${a|lower|default:x|upper}")
    references = [Template.parse(text).references[0] for text in texts]
    assert [reference.has_default for reference in references] == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "has_glob"),
    [("/dev/x", False), ("/dev/x*", True), ("${a}/b?", True), ("${a}/{b,c}", True), ("${a|replace:*:x}/b", False)],
)
def test_template_has_a_glob_if_a_literal_part_has_one(text: str, *, has_glob: bool) -> None:
    assert Template.parse(text).has_glob is has_glob


def test_render_each_returns_a_text_for_each_value() -> None:
    assert Template.parse("/dev/${name}").render_each(VALUES) == ("/dev/uverbs0", "/dev/umad0")
    assert Template.parse("${name}-${index}").render_each(VALUES) == ("uverbs0-0", "umad0-0")
    assert Template.parse("fixed").render_each(VALUES) == ("fixed",)
    assert Template.parse("a.${name}").render_each(VALUES, str.upper) == ("a.UVERBS0", "a.UMAD0")
    assert Template.parse("${name}-${empty}").render_each(VALUES) == ("uverbs0-", "umad0-")


def test_alternative_attributes_are_named_with_their_offsets() -> None:
    template = Template.parse("${a|lower|or:b|or:c}")
    [reference] = template.references
    assert list(reference.named_offsets) == [("a", 2), ("b", 13), ("c", 18)]
    assert template.names == {"a", "b", "c"}


MEMBERS = merge_values(
    [
        {"name": ("x2",), "size": ("9",), "all": ("a", "b")},
        {"name": ("x10",), "node.name": ("n",)},
        {"name": ("x3",), "size": ("9",), "node.name": ("n",)},
    ]
)
RENDERED_OF_MEMBERS = {
    "${name}": "x2,x10,x3",
    "${size}": "9,9",
    "${size|count}": "2",
    "${size|unique}": "9",
    "${size|unique|count}": "1",
    "${size|default:-}": "9,-,9",
    "${size|default:}": "9,,9",
    "${size|upper|default:-|json}": '["9", "-", "9"]',
    "${size|or:name}": "9,x10,9",
    "${size|join:;|default:-}": "9;9",
    "${all|default:c}": "a,b,c,c",
    "${name|first}": "x2",
    "${gone|default:-}": "-,-,-",
    "${size|count|or:name}": "2",
    "${node.name}": "n",
    "${env.GONE|default:-}": "-",
    "${gone|default:-|unique}": "-",
}


@pytest.mark.parametrize(("text", "expected"), RENDERED_OF_MEMBERS.items())
def test_template_renders_the_values_of_members_in_their_order(text: str, expected: str) -> None:
    assert Template.parse(text).render(MEMBERS) == expected


def test_merged_values_are_a_mapping_of_the_names_of_all_members() -> None:
    assert set(MEMBERS) == {"name", "size", "all", "node.name"}
    assert len(MEMBERS) == 4
    assert "gone" not in MEMBERS
    with pytest.raises(KeyError, match="'gone'"):
        MEMBERS["gone"]
    assert MEMBERS["node.name"] == ("n",)
    assert merge_values([MEMBERS, {"name": ("y",)}])["name"] == ("x2", "x10", "x3", "y")
    assert merge_values([VALUES]) is VALUES


def test_distinct_values_are_in_natural_order_without_repeats() -> None:
    assert distinct_values(MEMBERS) == {
        "name": ("x2", "x3", "x10"),
        "size": ("9",),
        "all": ("a", "b"),
        "node.name": ("n",),
    }
    assert distinct_values({"a": ("x10", "x2")}) == {"a": ("x2", "x10")}
    assert distinct_values(merge_values([{"a": ("1",)}, {"b": ("2",)}])) == {"a": ("1",), "b": ("2",)}
    # No copy of the values of most candidates.
    single = {"a": ("1",), "b": ()}
    assert distinct_values(single) is single


def test_layered_values_are_those_of_the_upper_layer_first() -> None:
    lower, upper = {"a": ("1",), "b": ("2",)}, {"b": ("3",), "c": ("4",)}
    values = LayeredValues(lower, upper)
    assert list(values.items()) == [("a", ("1",)), ("b", ("3",)), ("c", ("4",))]
    assert len(values) == 3
    assert values == {"a": ("1",), "b": ("3",), "c": ("4",)}
    assert values == LayeredValues({**lower}, {**upper})
    assert values == LayeredValues(upper, {**lower, "b": ("3",)})
    assert values != LayeredValues(lower, {})
    assert "d" not in values


def test_layered_values_are_distinct_if_both_layers_are() -> None:
    single = LayeredValues({"a": ("1",)}, {"b": ("2",)})
    assert distinct_values(single) is single
    assert distinct_values(LayeredValues({"a": ("2", "1")}, {"b": ("2",)})) == {"a": ("1", "2"), "b": ("2",)}
    assert distinct_values(LayeredValues({"a": ("1",)}, {"b": ("2", "2")})) == {"a": ("1",), "b": ("2",)}


def test_render_each_combines_the_values_of_one_member_only() -> None:
    assert Template.parse("${name}:${size}").render_each(MEMBERS) == ("x2:9", "x3:9")
    assert Template.parse("${name}:${gone|default:-}").render_each(MEMBERS) == ("x2:-", "x10:-", "x3:-")
    assert Template.parse("${size|or:name}").render_each(MEMBERS) == ("9", "x10")
    apart = merge_values([{"a": ("1",)}, {"b": ("3", "2")}])
    assert Template.parse("${a}-${b}").render_each(apart) == ("1-2", "1-3")


def test_combination_has_the_other_attributes_of_its_member() -> None:
    template, context = Template.parse("${name|or:all}"), Template.parse("${size}${gone}${name}")
    assert list(combine_values((template,), MEMBERS, (context,))) == [
        {"name": ("x2",), "all": ("a", "b"), "size": ("9",)},
        # A member without the attribute has the values of all members.
        {"name": ("x10",), "size": ("9", "9")},
        {"name": ("x3",), "size": ("9",)},
    ]


LIMITS = {
    "${name" + "|replace:x:xxxxxxxxxxxxxxxxxxxx" * 5 + "}": "a value of 16000 characters",
    "${name|first|replace:x:" + "x" * 4096 + "}": "a value of 8192 characters",
    "${many|join:" + "-" * 1000 + "|count}": "renders to 1002000 characters, at most 131072",
    "x" * 131_071 + "${name}": "renders to 131073 characters or more, at most 131072",
}


@pytest.mark.parametrize(("text", "message"), LIMITS.items(), ids=range(len(LIMITS)))
def test_template_that_grows_over_a_limit_is_refused_with_the_number(text: str, message: str) -> None:
    values = {"name": ("xx",), "many": ("123",) * 1000}
    with pytest.raises(RenderLimitError, match=message) as caught:
        Template.parse(text).render(values)
    assert message in caught.value.describe("the device x0")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("${name|replace:x:" + "x" * 2048 + "}", 4096),
        ("${long|replace:y:x}", 131_072),
        ("${long|join:,}", 131_072),
        ("${half|join:--}", 131_072),
        ("x" * 131_070 + "${name}", 131_072),
    ],
    ids=["replace", "value", "single", "join", "text"],
)
def test_text_may_be_as_long_as_the_limit(text: str, length: int) -> None:
    values = {"name": ("xx",), "long": ("x" * 131_072,), "half": ("x" * 65_535,) * 2}
    assert len(Template.parse(text).render(values)) == length


def test_combinations_of_values_are_limited() -> None:
    values = {name: tuple(map(str, range(100))) for name in "abc"}
    assert len(Template.parse("${a}").render_each(values)) == 100
    assert len(Template.parse("${a}${d}").render_each({**values, "d": tuple("0123456789")})) == 1000
    # The combinations of all members count together.
    halves = merge_values({"a": tuple(map(str, range(start, start + 501)))} for start in (0, 501))
    with pytest.raises(RenderLimitError, match=r"renders to 1002 or more texts"):
        Template.parse("${a}").render_each(halves)
    with pytest.raises(RenderLimitError, match=r"renders to 1000000 or more texts.* of a and b and c; at most 1000"):
        Template.parse("${a}${b}${c}").render_each(values)


@given(st.text("ab$${}|:", max_size=15))
@settings(deadline=None)
def test_any_text_parses_or_raises_template_error(text: str) -> None:
    offset, template = 0, Template("", ())
    try:
        template = Template.parse(text)
    except TemplateError as error:
        offset = error.offset
    assert 0 <= offset <= len(text)
    rendered = template.render({name: (name,) for name in template.names})
    assert template.references or rendered == template.text.replace("$${", "${")


def test_gib_keeps_a_number_that_is_too_long_to_be_a_size() -> None:
    values = {"size": ("9" * 65,), "short": (str(3 << 30),)}
    assert Template.parse("${size|gib} ${short|gib}").render(values) == f"{'9' * 65} 3"


@pytest.mark.parametrize("name", ["quote", "json"])
def test_filters_that_double_a_text_end_at_the_limit(name: str) -> None:
    template = Template.parse("${a" + f"|{name}" * 16 + "}")
    tracemalloc.start()
    with pytest.raises(RenderLimitError, match="at most 131072 are allowed"):
        template.render({"a": ('"' * 4000,)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
