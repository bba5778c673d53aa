"""Texts for the devices of a container: values, texts for each device, and names of environment variables."""

import pytest

from genplug.spec.container_text import (
    ContainerText,
    VariableSpec,
    duplicate_name_error,
    render_variables,
    sanitize_for_variable_name,
)
from genplug.spec.template import MissingAttributeError, RenderLimitError, Template, Values, merge_values

RESOURCE = ("nvidia.com/GA102GL_A10-x",)
FIRST: Values = {"address": ("3b:00.0",), "index": ("0",), "resource": RESOURCE, "node.name": ("a",)}
SECOND = merge_values([{"address": ("af:00.0",), "index": ("1",), "resource": RESOURCE, "node.name": ("a",)}] * 2)


def render(name: str, value: str | ContainerText) -> dict[str, str]:
    text = ContainerText(Template.parse(value)) if isinstance(value, str) else value
    return dict(render_variables([VariableSpec(Template.parse(name), text)], (FIRST, SECOND)))


def test_name_of_the_resource_becomes_the_variable_that_kubevirt_reads() -> None:
    # KubeVirt replaces "." and "/" only.
    assert render("PCI_RESOURCE_${resource}", "${address}") == {
        "PCI_RESOURCE_NVIDIA_COM_GA102GL_A10-X": "3b:00.0,af:00.0,af:00.0",
    }
    assert sanitize_for_variable_name("intel.com/sriov_net\u00e4") == "INTEL_COM_SRIOV_NET_"


def test_devices_with_the_same_rendered_name_share_a_variable() -> None:
    assert render("GPU_${index}", "${address|unique}") == {"GPU_0": "3b:00.0", "GPU_1": "af:00.0"}
    assert render("GPU_${node.name}", "${index|unique}") == {"GPU_A": "0,1"}


def test_attribute_of_the_node_has_one_value_for_all_devices() -> None:
    assert render("A", "${resource}:${node.name}:${node.name|count}") == {"A": "nvidia.com/GA102GL_A10-x:a:1"}


def test_text_for_each_device_is_joined_between_prefix_and_suffix() -> None:
    each = ContainerText(Template.parse("${address|unique|quote}:${index|first}"), True, ";", "{", "}")  # noqa: FBT003 - is_each
    assert render("A", each) == {"A": '{"3b:00.0":0;"af:00.0":1}'}
    assert each.text == "{${address|unique|quote}:${index|first}}"


def test_text_for_each_device_is_limited_in_length() -> None:
    each = ContainerText(Template.parse("x" * 70_000 + "${index|first}"), is_each=True)
    with pytest.raises(RenderLimitError, match="renders to 140003 characters, at most 131072"):
        render("A", each)


def test_name_without_a_value_is_an_error() -> None:
    with pytest.raises(MissingAttributeError):
        render("A_${gone}", "x")


def test_names_that_occur_twice_are_an_error() -> None:
    assert duplicate_name_error(["A", "B"]) == ""
    assert duplicate_name_error(["A", "B", "A"]) == (
        "two entries of allocate.env have the name A, so one value would be lost"
    )
