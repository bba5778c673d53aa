"""Names of resources, environment variables, annotations, CDI devices and attributes, and the rules for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.names import (
    annotation_key_error,
    cdi_device_error,
    env_name_error,
    is_attribute_name,
    resource_name_error,
    sanitize_for_resource_name,
)
from genplug.spec.template import Template, TemplateError


def test_resource_domain_has_at_most_244_characters() -> None:
    longest = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * 61])
    assert len(longest) == 244
    assert resource_name_error(f"{longest}/x") == ""
    assert "245 characters, at most 244 are allowed" in resource_name_error(f"{longest}e/x")


@pytest.mark.parametrize("name", ["A", "_a", "_A1", "NVIDIA_VISIBLE_DEVICES", "a.b-c", "x1"])
def test_env_name_of_kubernetes_is_accepted(name: str) -> None:
    assert env_name_error(name) == ""


@pytest.mark.parametrize("name", ["", "1a", "a b", "a=b", "ä", "A\n"])
def test_invalid_env_name_is_rejected_with_the_rule(name: str) -> None:
    assert "environment variable names consist" in env_name_error(name)


@pytest.mark.parametrize("key", ["example.com/x", "x", "a.b_c", "a.b/c_d"])
def test_annotation_key_of_kubernetes_is_accepted(key: str) -> None:
    assert annotation_key_error(key) == ""


@pytest.mark.parametrize(
    "key",
    [
        "",
        "cdi.k8s.io/x",
        "io.kubernetes.x",
        "io.kubernetes.cri/x",
        "a/b/c",
        "A/b",
        "a b",
        "a/",
        "x" * 64,
        f"a/{'x' * 64}",
    ],
)
def test_invalid_or_cdi_annotation_key_is_rejected(key: str) -> None:
    assert annotation_key_error(key) != ""


@pytest.mark.parametrize("name", ["a.io/b=x", "nvidia.com/gpu=GPU-1a:0", "V-1.io/c_l.a-ss=0", "a/b=0", "a.io/b=x.y_z"])
def test_cdi_device_name_is_accepted(name: str) -> None:
    assert cdi_device_error(name) == ""


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a.io/b", "VENDOR/CLASS=DEVICE"),
        ("a.io=b", "VENDOR/CLASS=DEVICE"),
        ("x", "VENDOR/CLASS=DEVICE"),
        ("", "VENDOR/CLASS=DEVICE"),
        ("/b=x", "vendor and class"),
        ("a.io/=x", "vendor and class"),
        ("1a.io/b=x", "vendor and class"),
        ("a.io/1=x", "vendor and class"),
        ("a.io-/b=x", "vendor and class"),
        ("a.io/b/c=x", "vendor and class"),
        ("a io/b=x", "vendor and class"),
        ("a.io/b=", "a CDI device name consists"),
        ("a.io/b=x-", "a CDI device name consists"),
        ("a.io/b=:x", "a CDI device name consists"),
        ("a.io/b=x y", "a CDI device name consists"),
        ("a.io/b=x,y", "a CDI device name consists"),
        ("a.io/b=x=y", "a CDI device name consists"),
        ("a.io/b=x\n", "a CDI device name consists"),
    ],
)
def test_invalid_cdi_device_name_is_rejected_with_the_rule(name: str, rule: str) -> None:
    assert rule in cdi_device_error(name)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a1", "a1"),
        ("a b/c", "a-b-c"),
        ("A_b.c-d", "A_b.c-d"),
        (" NVIDIA H100 (80 GB) ", "NVIDIA-H100-80-GB"),
        ("/", ""),
    ],
)
def test_value_is_sanitized_for_a_resource_name(value: str, name: str) -> None:
    assert sanitize_for_resource_name(value) == name


@given(st.text(max_size=40))
def test_sanitized_value_is_valid_in_a_resource_name_or_empty(value: str) -> None:
    assert not sanitize_for_resource_name(value) or not resource_name_error(f"a.io/{sanitize_for_resource_name(value)}")


@given(st.text("aZ_09.-|{}$: ä\n", max_size=6))
def test_attribute_name_is_valid_if_a_template_can_refer_to_it(name: str) -> None:
    try:
        names = Template.parse(f"${{{name}}}").names
    except TemplateError:
        names = frozenset()
    assert is_attribute_name(name) is (names == {name})
