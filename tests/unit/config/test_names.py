"""Names that somebody else makes rules for: the kubelet for resources, Kubernetes for variables, CDI for devices."""

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


def test_a_prefix_of_244_characters_is_the_longest() -> None:
    longest = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * 61])
    assert len(longest) == 244
    assert resource_name_error(f"{longest}/x") == ""
    assert "245 characters, at most 244 are allowed" in resource_name_error(f"{longest}e/x")


@pytest.mark.parametrize("name", ["A", "_a", "NVIDIA_VISIBLE_DEVICES", "a.b-c", "x1"])
def test_a_variables_name_is_as_kubernetes_has_it(name: str) -> None:
    assert env_name_error(name) == ""


@pytest.mark.parametrize("name", ["", "1a", "a b", "a=b", "ä"])
def test_what_is_no_variables_name_is_said(name: str) -> None:
    assert "environment variable names consist" in env_name_error(name)


@pytest.mark.parametrize("key", ["example.com/x", "x", "a.b/c_d"])
def test_an_annotation_may_have_a_domain(key: str) -> None:
    assert annotation_key_error(key) == ""


@pytest.mark.parametrize("key", ["cdi.k8s.io/x", "io.kubernetes.cri/x", "a/b/c", "a b", f"a/{'x' * 64}"])
def test_an_annotation_that_could_hand_out_devices_or_is_none_is_refused(key: str) -> None:
    assert annotation_key_error(key) != ""


@pytest.mark.parametrize("name", ["a.io/b=x", "nvidia.com/gpu=GPU-1a:0", "V-1.io/c_l.a-ss=0", "a/b=0", "a.io/b=x.y_z"])
def test_a_cdi_devices_name_is_as_cdi_has_it(name: str) -> None:
    assert cdi_device_error(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
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
def test_what_is_no_cdi_devices_name_is_said(name: str, fault: str) -> None:
    assert fault in cdi_device_error(name)


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
def test_a_value_stands_in_a_name_without_what_may_not_be_there(value: str, name: str) -> None:
    assert sanitize_for_resource_name(value) == name


@given(st.text(max_size=40))
def test_whatever_a_value_is_it_makes_a_name_or_none_at_all(value: str) -> None:
    assert not sanitize_for_resource_name(value) or not resource_name_error(f"a.io/{sanitize_for_resource_name(value)}")


@given(st.text("aZ_09.-|{}$: ä\n", max_size=6))
def test_an_attribute_is_called_what_a_template_can_name(name: str) -> None:
    try:
        names = Template.parse(f"${{{name}}}").names
    except TemplateError:
        names = frozenset()
    assert is_attribute_name(name) is (names == {name})
