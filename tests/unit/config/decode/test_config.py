"""Resources of a configuration: the defaults of their keys, all keys together, and invalid values."""

import pytest

from genplug.spec.diagnostic import ErrorCode
from genplug.spec.model import AllocateSpec, CandidateType
from genplug.spec.probes import HealthSpec
from tests.support.configs import CONFIG_HEADER, DEVICES, find_codes, find_diagnostics, load_resource, render_config


def test_resource_of_devices_has_the_default_of_every_other_key() -> None:
    found = load_resource(DEVICES)
    (source,) = found.sources
    assert (found.replicas, found.tokens, found.overlap) == (1, None, False)
    assert (found.allocate, found.health) == (AllocateSpec(), HealthSpec(60.0))
    assert [glob.text for glob in source.globs] == ["/dev/x*"]
    assert (source.exclude, source.where, source.group_by, source.nodes, source.companions, source.id) == (
        (),
        (),
        None,
        (),
        (),
        None,
    )
    assert (str(found.location), str(source.location)) == ("c.yaml:4:3", "c.yaml:5:16")


def test_every_key_of_a_resource_is_decoded() -> None:
    found = load_resource("""
devices:
- glob: [/dev/x*, /dev/y*]
  exclude: /dev/x9
  type: char
  where: {name: x*}
  groupBy: g${index}
  id: ${name}
  nodes:
  - path: /dev/z${index}*
    as: /dev/z
    permissions: mr
    optional: true
  with: [/dev/ctl]
- glob: /dev/block
tokens: 7
share: {overlap: true, distinct: false}
allocate:
  env: {B: "${path}", A: fixed}
  mounts: [{hostPath: /a, containerPath: /b}, {hostPath: /c, containerPath: /d, readOnly: false, optional: true}]
  annotations: {example.com/x: "${name}"}
  inject: nodes
preferredAllocation: {policy: none}
topology: none
health: {removalGracePeriodSeconds: 1.5}
""")
    first, second = found.sources
    assert (found.replicas, found.tokens, found.overlap) == (1, 7, True)
    assert found.health == HealthSpec(1.5)
    assert [glob.text for glob in first.globs] == ["/dev/x*", "/dev/y*"]
    assert [glob.text for glob in first.exclude] == ["/dev/x9"]
    assert first.type is CandidateType.CHAR
    assert [condition.attribute for condition in first.where] == ["name"]
    assert first.group_by is not None
    assert first.id is not None
    assert (first.group_by.text, first.id.text) == ("g${index}", "${name}")
    (node,) = first.nodes
    assert node.container_path is not None
    assert (node.path.text, node.container_path.text) == ("/dev/z${index}*", "/dev/z")
    assert (node.permissions, node.optional) == ("rm", True)
    (companion,) = first.companions
    assert (companion.path.text, companion.container_path) == ("/dev/ctl", None)
    assert (companion.permissions, companion.optional) == ("rw", False)
    assert [(spec.name.text, spec.value.text) for spec in found.allocate.env] == [("B", "${path}"), ("A", "fixed")]
    assert [(mount.host_path.text, mount.read_only, mount.optional) for mount in found.allocate.mounts] == [
        ("/a", True, False),
        ("/c", False, True),
    ]
    assert [(name, template.text) for name, template in found.allocate.annotations] == [("example.com/x", "${name}")]
    assert (found.has_topology, found.allocate.injects_by_cdi, found.allocate.cdi_devices) == (False, False, ())
    assert second.type is CandidateType.DEVICE


def test_packed_is_the_default_preference() -> None:
    specs = [
        load_resource(f"{DEVICES}\n{body}").preference
        for body in (
            "",
            "preferredAllocation: {policy: spread}",
            "preferredAllocation: {by: '${index}'}",
            "preferredAllocation: {}",
            "preferredAllocation: null",
        )
    ]
    assert [(spec.policy.value, spec.by.text if spec.by else None, spec.is_explicit) for spec in specs] == [
        ("packed", None, False),
        ("spread", None, True),
        ("packed", "${index}", True),
        ("packed", None, True),
        ("packed", None, False),
    ]


@pytest.mark.parametrize(("written", "is_listed"), [("", True), ("topology: auto", True), ("topology: none", False)])
def test_topology_is_listed_unless_the_key_is_none(written: str, *, is_listed: bool) -> None:
    assert load_resource(f"{DEVICES}\n{written}").has_topology is is_listed


INVALID = {
    "no devices": ("replicas: 2", ErrorCode.MISSING_KEY),
    "empty list of devices": ("devices: []", ErrorCode.WRONG_VALUE),
    "null as device": ("devices: [null]", ErrorCode.WRONG_TYPE),
    "zero replicas": (f"{DEVICES}\nreplicas: 0", ErrorCode.WRONG_VALUE),
    "too many replicas": (f"{DEVICES}\nreplicas: 1001", ErrorCode.WRONG_VALUE),
    "fraction of a replica": (f"{DEVICES}\nreplicas: 1.5", ErrorCode.WRONG_TYPE),
    "too many tokens": (f"{DEVICES}\ntokens: 10001", ErrorCode.WRONG_VALUE),
    "unknown topology": (f"{DEVICES}\ntopology: numa", ErrorCode.WRONG_VALUE),
    "empty topology": (f"{DEVICES}\ntopology: ''", ErrorCode.WRONG_VALUE),
    "unknown attribute": (f"{DEVICES}\nallocate: {{env: {{A: '${{nme}}'}}}}", ErrorCode.UNKNOWN_ATTRIBUTE),
    "prefix without a name": (f"{DEVICES}\nallocate: {{env: {{A: '${{attr.}}'}}}}", ErrorCode.UNKNOWN_ATTRIBUTE),
    "attribute of another source": (
        "devices: [{glob: /dev/x, attributes: {a: {path: /x}}}, {glob: /dev/y, id: '${a}'}]",
        ErrorCode.UNKNOWN_ATTRIBUTE,
    ),
    "unknown attribute in a condition": ("devices: [{glob: /dev/x, where: {nme: x}}]", ErrorCode.UNKNOWN_ATTRIBUTE),
    "verbatim ID without an ID": ("devices: [{glob: /dev/x, verbatimId: true}]", ErrorCode.MISSING_KEY),
}


@pytest.mark.parametrize(("body", "expected"), INVALID.values(), ids=INVALID)
def test_invalid_resource_is_reported_once(body: str, expected: ErrorCode) -> None:
    assert find_codes(body) == [expected]


def test_defaults_can_refer_to_custom_attributes_of_a_resource() -> None:
    body = "devices: [{glob: /dev/x, attributes: {uuid: {path: /x}}}]"
    assert (
        find_diagnostics(
            f"{CONFIG_HEADER}defaults: {{allocate: {{env: {{A: '${{uuid}}'}}}}}}\nresources:\n  a.io/x: {{{body}}}\n"
        )
        == ()
    )


def test_all_errors_are_reported_in_the_order_of_the_file() -> None:
    found = find_diagnostics(
        render_config("devices:\n- glob: x\n  typ: char\nreplicas: many\nallocate: {env: {1A: '${nme}'}}")
    )
    assert [(diagnostic.code, diagnostic.location.line) for diagnostic in found] == [
        (ErrorCode.GLOB, 6),
        (ErrorCode.UNKNOWN_KEY, 7),
        (ErrorCode.WRONG_TYPE, 8),
        (ErrorCode.NAME, 9),
        (ErrorCode.UNKNOWN_ATTRIBUTE, 9),
    ]
