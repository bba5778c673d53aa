"""Names that somebody else makes rules for: the kubelet's for resources, Kubernetes' for variables and annotations."""

import pytest

from genplug.config.names import annotation_key_fault, env_name_fault, resource_name_fault


def test_a_prefix_of_244_characters_is_the_longest() -> None:
    longest = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * 61])
    assert len(longest) == 244
    assert resource_name_fault(f"{longest}/x") == ""
    assert "245 characters, 244 are allowed" in resource_name_fault(f"{longest}e/x")


@pytest.mark.parametrize("name", ["A", "_a", "NVIDIA_VISIBLE_DEVICES", "a.b-c", "x1"])
def test_a_variables_name_is_as_kubernetes_has_it(name: str) -> None:
    assert env_name_fault(name) == ""


@pytest.mark.parametrize("name", ["", "1a", "a b", "a=b", "ä"])
def test_what_is_no_variables_name_is_said(name: str) -> None:
    assert "a variable's name is" in env_name_fault(name)


@pytest.mark.parametrize("key", ["example.com/x", "x", "a.b/c_d"])
def test_an_annotation_may_have_a_domain(key: str) -> None:
    assert annotation_key_fault(key) == ""


@pytest.mark.parametrize("key", ["cdi.k8s.io/x", "io.kubernetes.cri/x", "a/b/c", "a b", f"a/{'x' * 64}"])
def test_an_annotation_that_could_hand_out_devices_or_is_none_is_refused(key: str) -> None:
    assert annotation_key_fault(key) != ""
