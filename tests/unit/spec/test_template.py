"""Templates: the texts that they render, and the errors of invalid templates."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.spec.template import (
    MissingAttributeError,
    RenderLimitError,
    Template,
    TemplateError,
    distinct_values,
    merge_values,
)

VALUES = {
    "path": ("/dev/uverbs0", "/dev/umad0"),
    "name": ("uverbs0", "umad0"),
    "index": ("0",),
    "size": ("137438953472",),
    "empty": (),
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
    "${path|first}": "/dev/uverbs0",
    "${path|count}": "2",
    "${name|replace:umad:uverbs|unique}": "uverbs0",
    "${path|dirname|unique}": "/dev",
    "${index|pad:3}": "000",
    "${name|pad:3}": "uverbs0,umad0",
    "${size|pad:3}": "137438953472",
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
    "${name|gib}": "uverbs0,umad0",
    "${missing|default:none}": "none",
    "${missing|lower|default:None}": "None",
    "${missing|count|default:0}": "0",
    "${empty|default:x}": "x",
    "${empty}": "",
    "${empty|count}": "0",
    "${empty|first}": "",
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


INVALID = {
    "${": 0,
    "ab${index": 2,
    "${}": 2,
    "${1}": 2,
    "${ index}": 2,
    "${in dex}": 2,
    "${index|}": 8,
    "${index|sort}": 8,
    "${index|lower|sort}": 14,
    "${index|lower:x}": 8,
    "${index|replace}": 8,
    "${index|replace:a}": 8,
    "${index|replace:a:b:c}": 8,
    "${index|replace::b}": 8,
    "${index|join}": 8,
    "${index|default}": 8,
    "${index|Lower}": 8,
    "${index|unique:x}": 8,
    "${index|pad}": 8,
    "${index|pad:}": 8,
    "${index|pad:0}": 8,
    "${index|pad:65}": 8,
    "${index|pad:x}": 8,
    "${index|or}": 8,
    "${index|or:}": 11,
    "${index|or:1}": 11,
    "${index" + "|lower" * 17 + "}": 2,
    "${index}" * 101: 800,
}


@pytest.mark.parametrize(("text", "offset"), INVALID.items())
def test_invalid_template_is_rejected_at_its_error(text: str, offset: int) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert caught.value.offset == offset
    assert caught.value.hint


def test_missing_attribute_is_named_in_the_error() -> None:
    with pytest.raises(MissingAttributeError) as caught:
        Template.parse("a${missing|lower}").render(VALUES)
    assert caught.value.name == "missing"


def test_reference_has_its_offset_in_the_template() -> None:
    template = Template.parse("$${a}${b|lower}x${c}")
    assert [(reference.name, reference.offset) for reference in template.references] == [("b", 7), ("c", 18)]
    assert template.names == {"b", "c"}


def test_render_each_returns_a_text_for_each_value() -> None:
    assert Template.parse("/dev/${name}").render_each(VALUES) == ("/dev/uverbs0", "/dev/umad0")
    assert Template.parse("${name}-${index}").render_each(VALUES) == ("uverbs0-0", "umad0-0")
    assert Template.parse("fixed").render_each(VALUES) == ("fixed",)


def test_alternative_attributes_are_named_with_their_offsets() -> None:
    template = Template.parse("${a|lower|or:b|or:c}")
    [reference] = template.references
    assert list(reference.named_offsets) == [("a", 2), ("b", 13), ("c", 18)]
    assert template.names == {"a", "b", "c"}


MEMBERS = merge_values(
    [{"name": ("x2",), "size": ("9",), "all": ("a", "b")}, {"name": ("x10",)}, {"name": ("x3",), "size": ("9",)}]
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
    "${gone|default:-|unique}": "-",
}


@pytest.mark.parametrize(("text", "expected"), RENDERED_OF_MEMBERS.items())
def test_template_renders_the_values_of_members_in_their_order(text: str, expected: str) -> None:
    assert Template.parse(text).render(MEMBERS) == expected


def test_merged_values_are_a_mapping_of_the_names_of_all_members() -> None:
    assert set(MEMBERS) == {"name", "size", "all"}
    assert len(MEMBERS) == 3
    assert "gone" not in MEMBERS
    assert merge_values([MEMBERS, {"name": ("y",)}])["name"] == ("x2", "x10", "x3", "y")
    assert distinct_values(MEMBERS) == {"name": ("x2", "x3", "x10"), "size": ("9",), "all": ("a", "b")}


def test_render_each_combines_the_values_of_one_member_only() -> None:
    assert Template.parse("${name}:${size}").render_each(MEMBERS) == ("x2:9", "x3:9")
    assert Template.parse("${name}:${gone|default:-}").render_each(MEMBERS) == ("x2:-", "x10:-", "x3:-")
    assert Template.parse("${size|or:name}").render_each(MEMBERS) == ("9", "x10")
    apart = merge_values([{"a": ("1",)}, {"b": ("3", "2")}])
    assert Template.parse("${a}-${b}").render_each(apart) == ("1-2", "1-3")


LIMITS = {
    "${name" + "|replace:x:xxxxxxxxxxxxxxxxxxxx" * 5 + "}": "a value of 16000 characters",
    "${name|first|replace:x:" + "x" * 4096 + "}": "a value of 8192 characters",
    "${many|join:" + "-" * 1000 + "}": "renders to 1002000 characters, at most 131072",
    "x" * 131_071 + "${name}": "renders to 131073 characters or more, at most 131072",
}


@pytest.mark.parametrize(("text", "message"), LIMITS.items(), ids=range(len(LIMITS)))
def test_template_that_grows_over_a_limit_is_refused_with_the_number(text: str, message: str) -> None:
    values = {"name": ("xx",), "many": ("123",) * 1000}
    with pytest.raises(RenderLimitError, match=message):
        Template.parse(text).render(values)


def test_combinations_of_values_are_limited() -> None:
    values = {name: tuple(map(str, range(100))) for name in "abc"}
    assert len(Template.parse("${a}").render_each(values)) == 100
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
