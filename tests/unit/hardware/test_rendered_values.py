"""Faults of a device in the values that a container would get with it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.discovery import discover
from genplug.hardware.rendered_values import find_plain_references, has_plain_values, rendered_value_faults
from genplug.spec.container_text import ContainerText
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_VARIABLE_BYTES
from genplug.spec.model import AllocateSpec, CustomAttribute, MountSpec, PreStartSpec, Resource
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template
from tests.support.configs import format_cdi_spec
from tests.support.hardware import (
    LOCATION,
    NAME,
    NodeTree,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    build_variables,
    list_devices,
)

FILE = "/sys/value"
VALUE = CustomAttribute(LOCATION, "value", (Template.parse(FILE),))
SOURCE = replace(build_source("/dev/x"), attributes=(VALUE,))
PERMISSIVE_POLICY = Policy("p.yaml", mounts=(Glob.parse("/**"),), cdi=("*",), annotations=("*",))


def build_allocate(key: str, text: str) -> AllocateSpec:
    template = Template.parse(text)
    match key:
        case "env":
            return AllocateSpec(env=build_variables({"A": template.text}))
        case "annotations":
            return AllocateSpec(annotations=(("a.io/b", ContainerText(template)),))
        case "cdiDevices":
            return AllocateSpec(cdi_devices=(template,))
        case "containerPath":
            return AllocateSpec(
                mounts=(MountSpec(LOCATION, Template.parse("/opt"), template, read_only=True, optional=False),)
            )
        case _:
            return AllocateSpec(
                mounts=(MountSpec(LOCATION, template, Template.parse("/opt"), read_only=True, optional=False),)
            )


def find_faults(tree: NodeTree, allocate: AllocateSpec, value: bytes, policy: Policy = PERMISSIVE_POLICY) -> list[str]:
    """Return the faults of a device whose file has these bytes."""
    tree.plug("/dev/x")
    tree.write(FILE)
    tree.at(FILE).write_bytes(value)
    resource = replace(build_resource(NAME, SOURCE, policy=policy), allocate=allocate)
    [device] = list_devices(discover(build_config(resource), tree.host))
    return list(device.faults)


KEYS = ("env", "annotations", "cdiDevices", "containerPath", "hostPath")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("value", "reason"), [(b"a\0b", "NUL byte"), (b"a\xffb", "not UTF-8")])
def test_device_whose_value_cannot_be_sent_has_a_fault(tree: NodeTree, key: str, value: bytes, reason: str) -> None:
    text = {"env": "${value}", "annotations": "${value}", "cdiDevices": "a.io/b=${value}"}.get(key, "/opt/${value}")
    (fault,) = find_faults(tree, build_allocate(key, text), value)
    assert reason in fault or key == "cdiDevices"


def test_device_without_such_a_value_has_no_fault(tree: NodeTree) -> None:
    for key in KEYS:
        text = {"env": "${value}", "annotations": "${value}", "cdiDevices": "a.io/b=${value}"}.get(key, "/opt/${value}")
        tree.write("/etc/cdi/a.json", format_cdi_spec("a.io/b", "good"))
        assert find_faults(tree, build_allocate(key, text), b"good\n") == []


@pytest.mark.parametrize(
    ("value", "target"),
    [("/", "${value}"), ("/etc/passwd", "${value}"), ("passwd", "/etc/${value}"), ("../etc", "/opt/${value}")],
)
def test_mount_whose_rendered_path_is_denied_is_a_fault(tree: NodeTree, value: str, target: str) -> None:
    (fault,) = find_faults(tree, build_allocate("containerPath", target), value.encode())
    assert fault.startswith("a mount at '/")


def test_mount_source_that_renders_to_a_parent_is_a_fault(tree: NodeTree) -> None:
    (fault,) = find_faults(tree, build_allocate("hostPath", "/opt/${value}"), b"../etc")
    assert fault == "the mount source '/opt/../etc' contains '..'"


def test_rendered_value_of_a_device_variable_is_a_fault(tree: NodeTree) -> None:
    allocate = AllocateSpec(env=build_variables({"NVIDIA_VISIBLE_DEVICES": "${value}"}))
    (fault,) = find_faults(tree, allocate, b"all")
    assert fault.startswith("the environment variable NVIDIA_VISIBLE_DEVICES is refused by 'env.allow' of p.yaml: it ")
    assert find_faults(tree, allocate, b"GPU-1") == []


def test_rendered_cdi_name_is_compared_with_the_policy(tree: NodeTree) -> None:
    (fault,) = find_faults(tree, build_allocate("cdiDevices", "a.io/b=${value}"), b"all", DEFAULT_POLICY)
    assert fault == (
        "the CDI device 'a.io/b=all' is refused by 'cdi.allow' of the default policy, which allows nothing"
    )


def test_variable_that_the_kernel_would_not_accept_is_a_fault(tree: NodeTree) -> None:
    template = Template.parse("${value}" + "x" * MAX_VARIABLE_BYTES)
    (fault,) = find_faults(tree, AllocateSpec(env=build_variables({"A": template.text})), b"y")
    assert "the environment variable A " in fault or "'allocate' " in fault


def test_argument_of_a_program_with_a_nul_byte_is_a_fault(tree: NodeTree) -> None:
    tree.plug("/dev/x")
    tree.write(FILE)
    tree.at(FILE).write_bytes(b"a\0b")
    command = (Template.parse("/opt/x"), Template.parse("${value}"))
    resource: Resource = replace(
        build_resource(NAME, SOURCE, policy=Policy(programs=(Glob.parse("/opt/x"),))),
        pre_start=PreStartSpec(LOCATION, command, 1.0),
    )
    [device] = list_devices(discover(build_config(resource), tree.host))
    assert device.faults == (
        "the argument '${value}' of preStart contains a NUL byte, which ends a text in the container",
    )


@pytest.mark.parametrize(("value", "target"), [("etc/passwd", "/${value}"), ("null", "/dev/${value}")])
def test_device_node_whose_rendered_container_path_is_denied_is_a_fault(
    tree: NodeTree, value: str, target: str
) -> None:
    tree.plug("/dev/x")
    tree.write(FILE, value)
    source = replace(SOURCE, nodes=(build_node_spec("/dev/x", as_=target),))
    [device] = list_devices(discover(build_config(build_resource(NAME, source)), tree.host))
    assert [fault for fault in device.faults if fault.startswith("the container path '/")]


def test_link_outside_of_dev_is_not_a_container_path(tree: NodeTree) -> None:
    tree.plug("/dev/x")
    tree.link("/etc/masked", "/dev/x")
    [device] = list_devices(discover(build_config(build_resource(NAME, build_source("/etc/masked"))), tree.host))
    (fault,) = device.faults
    assert fault == (
        "the container path '/etc/masked' is outside of /dev, where a device node could replace a file of the "
        "container; set another path with 'nodes' and 'as'"
    )


names = st.sampled_from(["A", "NVIDIA_VISIBLE_DEVICES", "PATH", "LD_PRELOAD", "A_${name}", "1A", "B"])
templates = st.sampled_from(["${path}", "x-${name},${path}", "all", "${resource}", "${path|upper}", "\0", "${missing}"])
texts = st.text(st.sampled_from("ax0/\0\n\ufffdé,="), max_size=3) | st.sampled_from(["all", "a" * 257, "a" * 131_072])
allocations = st.dictionaries(names, templates, max_size=3).map(lambda env: AllocateSpec(env=build_variables(env)))


@given(allocations, st.dictionaries(st.sampled_from(["path", "name"]), st.lists(texts, max_size=2).map(tuple)))
@example(AllocateSpec(env=build_variables({"NVIDIA_VISIBLE_DEVICES": "${path}"})), {"path": ("all",)})
@example(AllocateSpec(env=build_variables({"A": "${path}"})), {"path": ("a" * MAX_VARIABLE_BYTES,)})
@example(AllocateSpec(env=build_variables({"A": "${path}"})), {"path": ("\0",)})
def test_device_with_plain_values_has_no_fault(allocate: AllocateSpec, attributes: dict[str, tuple[str, ...]]) -> None:
    resource = replace(build_resource(NAME, SOURCE, policy=DEFAULT_POLICY), allocate=allocate)
    references = find_plain_references(resource)
    if references is not None and has_plain_values(attributes, references):
        assert rendered_value_faults(resource, NAME, attributes) == []


def test_path_in_a_variable_is_plain() -> None:
    resource = replace(build_resource(NAME, SOURCE), allocate=AllocateSpec(env=build_variables({"A": "${path}"})))
    assert find_plain_references(resource) == frozenset({"path"})
    assert has_plain_values({"path": ("/dev/x0",)}, ["path"])
    assert not any(has_plain_values({"path": values}, ["path"]) for values in ((), ("a", "b"), ("é",), ("\n",)))
