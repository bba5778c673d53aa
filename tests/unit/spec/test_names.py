"""Names of resources, environment variables, annotations, CDI devices and attributes, and the rules for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.names import (
    annotation_key_error,
    cdi_device_error,
    env_name_error,
    is_attribute_name,
    is_node_attribute,
    resource_name_error,
    sanitize_for_resource_name,
)
from genplug.spec.template import Template, TemplateError

LONGEST_DOMAIN = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * 61])
PARTS = "a resource name consists of a domain, one '/' and a name"
RESERVED = "names under kubernetes.io/ are reserved for Kubernetes"
QUOTA = "a name must not start with 'requests.', which is reserved for quotas"
DOMAIN = "the part before '/' is not a DNS name (lower-case letters, digits, '-' and '.')"
NAME = "the part after '/' must consist of letters, digits, '-', '_' and '.', with a letter or digit at both ends"
RESOURCE_NAMES = {
    "example.com/card": "",
    "rdma/hca_1": "",
    "1.io/A.b-C_d": "",
    "kubernetes.iox/x": "",
    "requests/x": "",
    f"{LONGEST_DOMAIN}/x": "",
    f"a.io/{'x' * 63}": "",
    "": PARTS,
    "example.com": PARTS,
    "a/b/c": PARTS,
    "a//b": PARTS,
    "kubernetes.io/x": RESERVED,
    "node.kubernetes.io/x": RESERVED,
    "akubernetes.io/x": RESERVED,
    "requests.a.io/x": QUOTA,
    f"{LONGEST_DOMAIN}e/x": "the part before '/' has 245 characters, at most 244 are allowed",
    "/x": DOMAIN,
    "A.io/x": DOMAIN,
    "a..io/x": DOMAIN,
    "-a.io/x": DOMAIN,
    "a_b.io/x": DOMAIN,
    f"a.io/{'x' * 64}": "the part after '/' has 64 characters, at most 63 are allowed",
    "a.io/": NAME,
    "a.io/_x": NAME,
    "a.io/x-": NAME,
    "a.io/x y": NAME,
    "a.io/x\n": NAME,
}


@pytest.mark.parametrize(("name", "error"), RESOURCE_NAMES.items(), ids=map(repr, RESOURCE_NAMES))
def test_resource_name_follows_the_rules_of_the_kubelet(name: str, error: str) -> None:
    assert resource_name_error(name) == error


@pytest.mark.parametrize("name", ["A", "_a", "_A1", "NVIDIA_VISIBLE_DEVICES", "a.b-c", "x1"])
def test_env_name_of_kubernetes_is_accepted(name: str) -> None:
    assert env_name_error(name) == ""


@pytest.mark.parametrize("name", ["", "1a", "a b", "a=b", "ä", "A\n"])
def test_invalid_env_name_is_rejected_with_the_rule(name: str) -> None:
    assert env_name_error(name) == (
        "environment variable names consist of letters, digits, '_', '-' and '.', and must not start with a digit"
    )


@pytest.mark.parametrize("key", ["example.com/x", "x", "a.b_c", "a.b/c_d", "a/" + "x" * 63])
def test_annotation_key_of_kubernetes_is_accepted(key: str) -> None:
    assert annotation_key_error(key) == ""


@pytest.mark.parametrize("key", ["", "a/b/c", "A/b", "a b", "a/", "/a", "x" * 64, f"a/{'x' * 64}"])
def test_invalid_annotation_key_is_rejected_with_the_rule(key: str) -> None:
    assert annotation_key_error(key) == (
        "an annotation key consists of an optional domain and '/', then a name of at most 63 characters"
    )


@pytest.mark.parametrize("key", ["cdi.k8s.io/x", "io.kubernetes.x", "io.kubernetes.cri/x"])
def test_annotation_key_of_the_kubelet_or_the_runtime_is_rejected(key: str) -> None:
    assert annotation_key_error(key) == (
        "this prefix is reserved for the kubelet and the container runtime, which could inject other devices for it"
    )


@pytest.mark.parametrize("name", ["a.io/b=x", "nvidia.com/gpu=GPU-1a:0", "V-1.io/c_l.a-ss=0", "a/b=0", "a.io/b=x.y_z"])
def test_cdi_device_name_is_accepted(name: str) -> None:
    assert cdi_device_error(name) == ""


CDI_FORM = "a CDI device name has the form VENDOR/CLASS=DEVICE"
CDI_KIND = "vendor and class start with a letter and consist of letters, digits, '_', '-' and '.'"
CDI_DEVICE = "a CDI device name consists of letters, digits, '_-.:', and begins and ends with a letter or digit"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a.io/b", CDI_FORM),
        ("a.io=b", CDI_FORM),
        ("x", CDI_FORM),
        ("", CDI_FORM),
        ("/b=x", CDI_KIND),
        ("a.io/=x", CDI_KIND),
        ("1a.io/b=x", CDI_KIND),
        ("a.io/1=x", CDI_KIND),
        ("a.io-/b=x", CDI_KIND),
        ("a.io/b/c=x", CDI_KIND),
        ("a io/b=x", CDI_KIND),
        ("a.io/b=", CDI_DEVICE),
        ("a.io/b=x-", CDI_DEVICE),
        ("a.io/b=:x", CDI_DEVICE),
        ("a.io/b=x y", CDI_DEVICE),
        ("a.io/b=x,y", CDI_DEVICE),
        ("a.io/b=x=y", CDI_DEVICE),
        ("a.io/b=x\n", CDI_DEVICE),
    ],
)
def test_invalid_cdi_device_name_is_rejected_with_the_rule(name: str, rule: str) -> None:
    assert cdi_device_error(name) == rule


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a1", "a1"),
        ("a b/c", "a-b-c"),
        ("A_b.c-d", "A_b.c-d"),
        (" NVIDIA H100 (80 GB) ", "NVIDIA-H100-80-GB"),
        ("X-_.x._-X", "X-_.x._-X"),
        ("/", ""),
    ],
)
def test_value_is_sanitized_for_a_resource_name(value: str, name: str) -> None:
    assert sanitize_for_resource_name(value) == name


@given(st.text(max_size=40))
def test_sanitized_value_is_valid_in_a_resource_name_or_empty(value: str) -> None:
    assert not sanitize_for_resource_name(value) or not resource_name_error(f"a.io/{sanitize_for_resource_name(value)}")


@pytest.mark.parametrize(
    ("name", "is_same"),
    [
        ("node.name", True),
        ("resource", True),
        ("env.", True),
        ("env.NODE_NAME", True),
        ("name", False),
        ("slice", False),
        ("attr.env.x", False),
        ("node.names", False),
    ],
)
def test_attributes_of_the_node_are_the_same_for_every_device(name: str, *, is_same: bool) -> None:
    assert is_node_attribute(name) is is_same


@given(st.text("aZ_09.-|{}$: ä\n", max_size=6))
def test_attribute_name_is_valid_if_a_template_can_refer_to_it(name: str) -> None:
    try:
        names = Template.parse(f"${{{name}}}").names
    except TemplateError:
        names = frozenset()
    assert is_attribute_name(name) is (names == {name})
