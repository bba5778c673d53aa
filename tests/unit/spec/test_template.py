"""Templates: the texts that they render, and the errors of invalid templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.spec.template import MissingAttributeError, Template, TemplateError

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
