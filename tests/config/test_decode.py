"""From YAML to the model: what each key becomes, and what is refused for its meaning."""

import pytest
from config_texts import HEAD, codes, loaded, problems, resource

from genplug.config.load import load_text
from genplug.config.model import AllocateSpec, CandidateType, HealthSpec
from genplug.config.names import annotation_key_fault, env_name_fault, resource_name_fault
from genplug.config.problem import Code

DEVICES = "devices: [{glob: /dev/x*}]"


def test_a_resource_that_says_no_more_than_its_devices() -> None:
    found = loaded(DEVICES)
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
    assert (str(found.place), str(source.place)) == ("c.yaml:4:3", "c.yaml:5:16")


def test_everything_that_this_version_does() -> None:
    found = loaded("""
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
health: {keepGoneSeconds: 1.5}
""")
    first, second = found.sources
    assert (found.replicas, found.tokens, found.overlap) == (1, 7, True)
    assert found.health == HealthSpec(1.5)
    assert [glob.text for glob in first.globs] == ["/dev/x*", "/dev/y*"]
    assert [glob.text for glob in first.exclude] == ["/dev/x9"]
    assert first.type is CandidateType.CHAR
    assert [one.attribute for one in first.where] == ["name"]
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
    assert [(name, template.text) for name, template in found.allocate.env] == [("B", "${path}"), ("A", "fixed")]
    assert [(one.host_path.text, one.read_only, one.optional) for one in found.allocate.mounts] == [
        ("/a", True, False),
        ("/c", False, True),
    ]
    assert [(name, template.text) for name, template in found.allocate.annotations] == [("example.com/x", "${name}")]
    assert second.type is CandidateType.DEVICE


TYPES = {
    "{glob: /dev/x}": CandidateType.DEVICE,
    "{glob: '/{dev,dev}/x'}": CandidateType.DEVICE,
    "{glob: [/dev/x, /dev/**]}": CandidateType.DEVICE,
    "{glob: /dev/x, type: block}": CandidateType.BLOCK,
    "{glob: /sys/class/x/*, nodes: ['/dev/${name}']}": CandidateType.ANY,
    "{glob: [/dev/x, /sys/x], nodes: ['/dev/${name}']}": CandidateType.ANY,
    "{glob: /dev/bus/usb/*, type: directory, nodes: ['${path}/*']}": CandidateType.DIRECTORY,
    "{glob: /sys/x, type: char}": CandidateType.CHAR,
}


@pytest.mark.parametrize(("source", "kind"), TYPES.items(), ids=TYPES)
def test_what_candidates_must_be(source: str, kind: CandidateType) -> None:
    assert loaded(f"devices: [{source}]").sources[0].type is kind


@pytest.mark.parametrize(
    "source", ["{glob: /sys/x}", "{glob: '{/dev/a,/sys/b}'}", "{glob: /dev/x, type: any, nodes: []}"]
)
def test_candidates_that_are_no_nodes_need_nodes(source: str) -> None:
    assert codes(f"devices: [{source}]") == [Code.NOT_SUPPORTED]


@pytest.mark.parametrize(("asked", "given"), [("r", "r"), ("w", "w"), ("wr", "rw"), ("mwr", "rwm"), ("rm", "rm")])
def test_permissions_are_told_in_one_order(asked: str, given: str) -> None:
    (node,) = loaded(f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, permissions: {asked}}}]}}]").sources[0].nodes
    assert node.permissions == given


@pytest.mark.parametrize("asked", ["x", "''", "rwrw", "rr", "rwx", "RW", "r w", "5", "true", "[r]"])
def test_other_permissions_are_refused(asked: str) -> None:
    for key in ("nodes", "with"):
        (code,) = codes(f"devices: [{{glob: /dev/x, {key}: [{{path: /dev/x, permissions: {asked}}}]}}]")
        assert code in {Code.WRONG_VALUE, Code.WRONG_TYPE}


PATHS: dict[str, list[Code]] = {
    "/dev/x": [],
    "${path}": [],
    "${target}/y": [],
    "/dev/${name}": [],
    "/dev${path}": [],
    "${path|replace:x:y}": [],
    "/dev/..x": [],
    "${name}": [Code.PATH],
    "${path|basename}": [Code.PATH],
    "dev/x": [Code.PATH],
    "./x": [Code.PATH],
    "/dev/../x": [Code.PATH],
    "${path}/..": [Code.PATH],
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items(), ids=PATHS)
def test_a_path_is_absolute_and_does_not_climb(path: str, expected: list[Code]) -> None:
    bodies = [
        f"devices: [{{glob: /dev/x, nodes: ['{path}']}}]",
        f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, as: '{path}'}}]}}]",
        f"devices: [{{glob: /dev/x, with: ['{path}']}}]",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '{path}', containerPath: /x}}]}}",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /x, containerPath: '{path}'}}]}}",
    ]
    for body in bodies:
        assert codes(body) == expected


GOOD_NAMES = ["foo/bar", "a.io/X_y.z", "a/b", "1.2/3", "a-b.c/d-e", f"{'a' * 244}/x", f"a.io/{'x' * 63}"]
BAD_NAMES = [
    "a.kubernetes.io/x",
    "mykubernetes.io/x",
    "kubernetes.io/x",
    "requests.a.b/x",
    "x",
    "a/b/c",
    "A.com/x",
    f"a.io/{'x' * 64}",
    f"{'a' * 245}/x",
    "/x",
    "a.io/",
    "a..io/x",
    "-a.io/x",
    "a.io/-x",
    "a.io/x_",
    "a.io/x y",
    "ä.io/x",
    "a_b.io/x",
    "",
]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=[one[:20] for one in GOOD_NAMES])
def test_09_a_resource_name_that_the_kubelet_takes(name: str) -> None:
    assert list(load_text(resource(DEVICES, f'"{name}"'), "c.yaml").resources) == [name]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[one[:20] or "nothing" for one in BAD_NAMES])
def test_09_a_resource_name_that_the_kubelet_refuses_is_refused_with_the_reason(name: str) -> None:
    (problem,) = problems(resource(DEVICES, f'"{name}"'))
    assert problem.code is Code.RESOURCE_NAME
    assert resource_name_fault(name) in problem.message


@pytest.mark.parametrize("name", ["A", "_A1", "a.b-c"])
def test_a_variable_can_have_this_name(name: str) -> None:
    assert not env_name_fault(name)


@pytest.mark.parametrize("name", ["", "1A", "A=B", "A B", "Ä", "A\n"])
def test_no_variable_can_have_this_name(name: str) -> None:
    assert env_name_fault(name)


@pytest.mark.parametrize("key", ["a", "example.com/a", "a.b_c"])
def test_an_annotation_can_have_this_key(key: str) -> None:
    assert not annotation_key_fault(key)


@pytest.mark.parametrize(
    "key", ["", "cdi.k8s.io/x", "io.kubernetes.x", "io.kubernetes.cri/x", "a/b/c", "A/b", "a b", "x" * 64, "a/"]
)
def test_no_annotation_can_have_this_key(key: str) -> None:
    assert annotation_key_fault(key)


REFUSED = {
    "replicas and tokens": (f"{DEVICES}\nreplicas: 2\ntokens: 2", [Code.CONFLICT]),
    "no replicas": (f"{DEVICES}\nreplicas: 0", [Code.WRONG_VALUE]),
    "too many replicas": (f"{DEVICES}\nreplicas: 1001", [Code.WRONG_VALUE]),
    "half a replica": (f"{DEVICES}\nreplicas: 1.5", [Code.WRONG_TYPE]),
    "too many tokens": (f"{DEVICES}\ntokens: 10001", [Code.WRONG_VALUE]),
    "no devices": ("replicas: 2", [Code.MISSING_KEY]),
    "an empty list of devices": ("devices: []", [Code.WRONG_VALUE]),
    "a null device": ("devices: [null]", [Code.WRONG_TYPE]),
    "a number as name of a variable's value": (f"{DEVICES}\nallocate: {{env: {{A: 1}}}}", [Code.WRONG_TYPE]),
    "a mount over everything": (
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /a, containerPath: /}}]}}",
        [Code.PATH],
    ),
    "an unknown attribute": (f"{DEVICES}\nallocate: {{env: {{A: '${{nme}}'}}}}", [Code.UNKNOWN_ATTRIBUTE]),
    "an attribute of later": (f"{DEVICES}\nallocate: {{env: {{A: '${{attr.size}}'}}}}", [Code.NOT_SUPPORTED]),
    "an unknown attribute in a condition": (
        "devices: [{glob: /dev/x, where: {nme: x}}]",
        [Code.UNKNOWN_ATTRIBUTE],
    ),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused_once(body: str, expected: list[Code]) -> None:
    assert codes(body) == expected


def test_who_says_by_what_wants_packed_devices_and_nothing_said_is_no_preference() -> None:
    specs = [
        loaded(f"{DEVICES}\n{body}").preference
        for body in ("", "preferredAllocation: {policy: spread}", "preferredAllocation: {by: '${index}'}")
    ]
    assert [(one.policy.value, one.by.text if one.by else None) for one in specs] == [
        ("none", None),
        ("spread", None),
        ("packed", "${index}"),
    ]


UNSUPPORTED = [
    "slices: 2",
    "aliases: [a.io/b]",
    "allocate: {cdiDevices: [a/b=c]}",
    "allocate: {inject: cdi}",
    "topology: auto",
    "preStart: {exec: {command: [/x]}}",
    "health: {periodSeconds: 1}",
    "health: {timeoutSeconds: 1}",
    "health: {failureThreshold: 1}",
    "health: {successThreshold: 1}",
    "health: {onError: keep}",
    "health: {sticky: true}",
    "health: {probes: []}",
]


@pytest.mark.parametrize("body", UNSUPPORTED)
def test_what_this_version_cannot_do_is_refused_with_what_to_do_instead(body: str) -> None:
    (problem,) = problems(resource(f"{DEVICES}\n{body}"))
    assert problem.code is Code.NOT_SUPPORTED
    assert problem.hint
    assert problem.line[problem.place.column - 1 :].startswith(problem.tree.rpartition(".")[2])


def test_what_this_version_cannot_do_is_refused_once_where_defaults_ask_for_it() -> None:
    names = "".join(f"  a.io/{name}: {{devices: [{{glob: /dev/{name}}}]}}\n" for name in "abc")
    found = problems(f"{HEAD}defaults: {{topology: auto}}\nresources:\n{names}")
    assert [(one.code, one.tree, str(one.place)) for one in found] == [
        (Code.NOT_SUPPORTED, "defaults.topology", "c.yaml:3:12")
    ]


def test_own_attributes_are_refused_where_they_are_defined_and_not_where_they_are_used() -> None:
    body = """
devices:
- glob: /dev/x
  attributes: {uuid: {path: /x}}
  groupBy: ${uuid}
  where: {uuid: x}
allocate: {env: {UUID: "${uuid}"}}
"""
    assert codes(body) == [Code.NOT_SUPPORTED]


def test_nothing_on_purpose_is_a_configuration() -> None:
    assert load_text(f"{HEAD}resources: {{}}\n", "c.yaml").resources == {}


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems(resource("devices:\n- glob: x\n  typ: char\nreplicas: many\nallocate: {env: {1A: '${nme}'}}"))
    assert [(one.code, one.place.line) for one in found] == [
        (Code.GLOB, 6),
        (Code.UNKNOWN_KEY, 7),
        (Code.WRONG_TYPE, 8),
        (Code.NAME, 9),
        (Code.UNKNOWN_ATTRIBUTE, 9),
    ]
