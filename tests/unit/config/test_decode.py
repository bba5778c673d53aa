"""From YAML to the model: what each key becomes, and what is refused for its meaning."""

import pytest
from attrs import evolve

from genplug.config.diagnostics import ConfigInvalidError, ErrorCode
from genplug.config.load import load_text
from genplug.spec.globs import Glob
from genplug.spec.model import AllocateSpec, CandidateType, HealthSpec
from genplug.spec.names import resource_name_error
from genplug.spec.policy import Policy
from tests.support.configs import DEVICES, HEAD, find_codes, find_problems, load_resource, render_config


def test_a_resource_that_says_no_more_than_its_devices() -> None:
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


def test_everything_that_this_version_does() -> None:
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
    assert (found.has_topology, found.allocate.injects_by_cdi, found.allocate.cdi_devices) == (False, False, ())
    assert second.type is CandidateType.DEVICE


@pytest.mark.parametrize(("written", "by_cdi"), [("", False), ("inject: nodes", False), ("inject: cdi", True)])
def test_nodes_are_handed_out_as_nodes_unless_cdi_is_asked_for(written: str, *, by_cdi: bool) -> None:
    assert load_resource(f"{DEVICES}\nallocate: {{{written}}}").allocate.injects_by_cdi is by_cdi


def test_cdi_devices_of_others_are_names_in_the_order_in_which_they_are_written() -> None:
    found = load_resource(f"{DEVICES}\nallocate: {{cdiDevices: ['b.io/x=${{index}}', a.io/x=all]}}")
    assert [one.text for one in found.allocate.cdi_devices] == ["b.io/x=${index}", "a.io/x=all"]


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
    assert load_resource(f"devices: [{source}]").sources[0].type is kind


@pytest.mark.parametrize(
    "source", ["{glob: /sys/x}", "{glob: '{/dev/a,/sys/b}'}", "{glob: /dev/x, type: any, nodes: []}"]
)
def test_candidates_that_are_no_nodes_need_none(source: str) -> None:
    assert load_resource(f"devices: [{source}]").sources[0].nodes == ()


@pytest.mark.parametrize(("asked", "given"), [("r", "r"), ("w", "w"), ("wr", "rw"), ("mwr", "rwm"), ("rm", "rm")])
def test_permissions_are_told_in_one_order(asked: str, given: str) -> None:
    (node,) = (
        load_resource(f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, permissions: {asked}}}]}}]").sources[0].nodes
    )
    assert node.permissions == given


@pytest.mark.parametrize("asked", ["x", "''", "rwrw", "rr", "rwx", "RW", "r w", "5", "true", "[r]"])
def test_other_permissions_are_refused(asked: str) -> None:
    for key in ("nodes", "with"):
        (code,) = find_codes(f"devices: [{{glob: /dev/x, {key}: [{{path: /dev/x, permissions: {asked}}}]}}]")
        assert code in {ErrorCode.WRONG_VALUE, ErrorCode.WRONG_TYPE}


PATHS: dict[str, list[ErrorCode]] = {
    "/dev/x": [],
    "${path}": [],
    "${target}/y": [],
    "/dev/${name}": [],
    "/dev${path}": [],
    "${path|replace:x:y}": [],
    "/dev/..x": [],
    "${name}": [ErrorCode.PATH],
    "${path|basename}": [ErrorCode.PATH],
    "dev/x": [ErrorCode.PATH],
    "./x": [ErrorCode.PATH],
    "/dev/../x": [ErrorCode.PATH],
    "${path}/..": [ErrorCode.PATH],
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items(), ids=PATHS)
def test_a_path_is_absolute_and_does_not_climb(path: str, expected: list[ErrorCode]) -> None:
    bodies = [
        f"devices: [{{glob: /dev/x, nodes: ['{path}']}}]",
        f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, as: '{path}'}}]}}]",
        f"devices: [{{glob: /dev/x, with: ['{path}']}}]",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '{path}', containerPath: /x}}]}}",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /x, containerPath: '{path}'}}]}}",
    ]
    for body in bodies:
        assert find_codes(body) == expected


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
    assert list(load_text(render_config(DEVICES, f'"{name}"'), "c.yaml").resources) == [name]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[one[:20] or "nothing" for one in BAD_NAMES])
def test_09_a_resource_name_that_the_kubelet_refuses_is_refused_with_the_reason(name: str) -> None:
    (problem,) = find_problems(render_config(DEVICES, f'"{name}"'))
    assert problem.code is ErrorCode.RESOURCE_NAME
    assert resource_name_error(name) in problem.message


def _own(attributes: str, more: str = "id: '${name}'") -> str:
    """A resource with a source that defines attributes."""
    return f"devices: [{{glob: /dev/x, attributes: {{{attributes}}}, {more}}}]"


REFUSED = {
    "replicas and tokens": (f"{DEVICES}\nreplicas: 2\ntokens: 2", [ErrorCode.CONFLICT]),
    "no replicas": (f"{DEVICES}\nreplicas: 0", [ErrorCode.WRONG_VALUE]),
    "too many replicas": (f"{DEVICES}\nreplicas: 1001", [ErrorCode.WRONG_VALUE]),
    "half a replica": (f"{DEVICES}\nreplicas: 1.5", [ErrorCode.WRONG_TYPE]),
    "too many tokens": (f"{DEVICES}\ntokens: 10001", [ErrorCode.WRONG_VALUE]),
    "no devices": ("replicas: 2", [ErrorCode.MISSING_KEY]),
    "an empty list of devices": ("devices: []", [ErrorCode.WRONG_VALUE]),
    "a null device": ("devices: [null]", [ErrorCode.WRONG_TYPE]),
    "a number as name of a variable's value": (f"{DEVICES}\nallocate: {{env: {{A: 1}}}}", [ErrorCode.WRONG_TYPE]),
    "a mount over everything": (
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /a, containerPath: /}}]}}",
        [ErrorCode.PATH],
    ),
    "an unknown attribute": (f"{DEVICES}\nallocate: {{env: {{A: '${{nme}}'}}}}", [ErrorCode.UNKNOWN_ATTRIBUTE]),
    "a prefix without a name": (f"{DEVICES}\nallocate: {{env: {{A: '${{attr.}}'}}}}", [ErrorCode.UNKNOWN_ATTRIBUTE]),
    "an ID as it is, without one": ("devices: [{glob: /dev/x, verbatimId: true}]", [ErrorCode.MISSING_KEY]),
    "a slice where there are none": (
        f"{DEVICES}\nallocate: {{env: {{A: '${{slice}}'}}}}",
        [ErrorCode.UNKNOWN_ATTRIBUTE],
    ),
    "slices that are no number": (f"{DEVICES}\nslices: two", [ErrorCode.WRONG_VALUE]),
    "slices and replicas": (f"{DEVICES}\nslices: 2\nreplicas: 2", [ErrorCode.CONFLICT]),
    "slices and tokens": (f"{DEVICES}\nslices: 2\ntokens: 2", [ErrorCode.CONFLICT]),
    "an alias that is no name": (f"{DEVICES}\naliases: [x]", [ErrorCode.RESOURCE_NAME]),
    "an alias of its own name": (f"{DEVICES}\naliases: [example.com/x]", [ErrorCode.CONFLICT]),
    "an alias twice": (f"{DEVICES}\naliases: [a.io/y, a.io/y]", [ErrorCode.CONFLICT]),
    "aliases of a pool": (f"{DEVICES}\naliases: [a.io/y]\ntokens: 2", [ErrorCode.CONFLICT]),
    "a CDI device without a class": (f"{DEVICES}\nallocate: {{cdiDevices: [a.io=x]}}", [ErrorCode.NAME]),
    "a CDI device without a name": (f"{DEVICES}\nallocate: {{cdiDevices: [a.io/b=]}}", [ErrorCode.NAME]),
    "a program that no policy allows": (f"{DEVICES}\npreStart: {{exec: {{command: [/x]}}}}", [ErrorCode.NOT_ALLOWED]),
    "a program that is looked for": (f"{DEVICES}\npreStart: {{exec: {{command: [x]}}}}", [ErrorCode.PATH]),
    "a program of templates": (f"{DEVICES}\npreStart: {{exec: {{command: ['/${{name}}']}}}}", [ErrorCode.PATH]),
    "an own attribute of the language's name": (_own("driver: {path: /x}"), [ErrorCode.NAME]),
    "an own attribute of a prefix": (_own("attr.x: {path: /x}"), [ErrorCode.NAME]),
    "an own attribute without a name": (_own("'1': {path: /x}"), [ErrorCode.NAME]),
    "an own attribute of a relative path": (_own("a: {path: x}"), [ErrorCode.PATH]),
    "an own attribute of itself": (_own("a: {path: '/${a}'}"), [ErrorCode.CONFLICT]),
    "own attributes in a circle": (_own("a: {path: '/${b}'}, b: {path: /x, find: '${a}'}"), [ErrorCode.CONFLICT] * 2),
    "an own attribute of an unknown one": (_own("a: {path: '/${b}'}"), [ErrorCode.UNKNOWN_ATTRIBUTE]),
    "an expression that looks ahead": (_own("a: {path: /x, find: '(?!x)'}"), [ErrorCode.SELECTOR]),
    "a place that needs the place": (_own("a: {path: /x}", "sysfs: '/sys/${pci.address}'"), [ErrorCode.CONFLICT]),
    "a place that needs it by an own attribute": (
        _own("a: {path: '/x/${numaNode}'}", "sysfs: '/sys/${a}'"),
        [ErrorCode.CONFLICT],
    ),
    "another source's attribute": (
        "devices: [{glob: /dev/x, attributes: {a: {path: /x}}}, {glob: /dev/y, id: '${a}'}]",
        [ErrorCode.UNKNOWN_ATTRIBUTE],
    ),
    "an unknown attribute in a condition": (
        "devices: [{glob: /dev/x, where: {nme: x}}]",
        [ErrorCode.UNKNOWN_ATTRIBUTE],
    ),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused_once(body: str, expected: list[ErrorCode]) -> None:
    assert find_codes(body) == expected


def test_neighbours_are_preferred_unless_somebody_says_otherwise() -> None:
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
    assert [(one.policy.value, one.by.text if one.by else None, one.is_explicit) for one in specs] == [
        ("packed", None, False),
        ("spread", None, True),
        ("packed", "${index}", True),
        ("packed", None, True),
        ("packed", None, False),
    ]


def test_own_attributes_are_known_in_their_source_and_to_the_whole_resource() -> None:
    body = """
devices:
- glob: /dev/x
  attributes:
    bdf: {path: /proc/gpus/*/information, find: 'Minor: ${minor}', dir: true}
    uuid: {path: "/proc/gpus/${bdf}/information", find: '(?P<value>GPU-.*)', all: true}
  sysfs: /sys/bus/pci/devices/${bdf}
  groupBy: ${uuid}
  where: {uuid: x}
allocate: {env: {UUID: "${uuid}"}}
preferredAllocation: {by: "${bdf}"}
"""
    (source,) = load_resource(body).sources
    bdf, uuid = source.attributes
    assert (bdf.name, bdf.use_dir_name, bdf.collect_all, bdf.names) == ("bdf", True, False, {"minor"})
    assert (uuid.name, uuid.use_dir_name, uuid.collect_all, uuid.names) == ("uuid", False, True, {"bdf"})
    assert source.sysfs is not None


def test_defaults_may_speak_of_the_attributes_of_any_resource() -> None:
    own = "devices: [{glob: /dev/x, attributes: {uuid: {path: /x}}}]"
    assert (
        find_problems(f"{HEAD}defaults: {{allocate: {{env: {{A: '${{uuid}}'}}}}}}\nresources:\n  a.io/x: {{{own}}}\n")
        == ()
    )


def test_a_name_of_templates_is_a_name_with_anything_in_their_places() -> None:
    config = load_text(f"{HEAD}resources:\n  a.io/x-${{attr.model|lower}}: {{devices: [{{glob: /dev/x}}]}}\n", "c.yaml")
    (one,) = config.resources.values()
    assert one.name_template is not None
    assert one.configured_name == one.name == "a.io/x-${attr.model|lower}"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("${name}/x", ErrorCode.RESOURCE_NAME),
        ("a.io/-${name}", ErrorCode.RESOURCE_NAME),
        ("a.io/" + "x" * 63 + "${name}", ErrorCode.RESOURCE_NAME),
        ("a.io/x-${nme}", ErrorCode.UNKNOWN_ATTRIBUTE),
        ("a.io/x-${name", ErrorCode.TEMPLATE),
    ],
)
def test_a_name_of_templates_that_can_be_none_is_refused(name: str, code: ErrorCode) -> None:
    found = find_problems(f"{HEAD}resources:\n  '{name}': {{devices: [{{glob: /dev/x}}]}}\n")
    assert [one.code for one in found] == [code]


def test_what_a_policy_allows_may_run_and_what_it_does_not_is_not_handed_out() -> None:
    policy = Policy(programs=(Glob.parse("/opt/*"),), cdi=("nvidia.com/gpu=*",), resources=("example.com/x",))
    body = """
devices: [{glob: /dev/x}]
preStart: {exec: {command: [/opt/reset, "${path}"]}, timeoutSeconds: 5}
allocate: {cdiDevices: ["nvidia.com/gpu=${index}", vendor.com/x=all]}
aliases: [a.io/y]
"""
    with pytest.raises(ConfigInvalidError) as refused:
        load_text(render_config(body), "c.yaml", policy)
    assert [(one.code, one.location.line) for one in refused.value.problems] == [
        (ErrorCode.NOT_ALLOWED, 7),
        (ErrorCode.NOT_ALLOWED, 8),
    ]
    one = load_text(render_config(body), "c.yaml", evolve(policy, cdi=("*",), resources=("*",))).resources[
        "example.com/x"
    ]
    assert one.pre_start is not None
    assert ([part.text for part in one.pre_start.command], one.pre_start.timeout_seconds) == (
        ["/opt/reset", "${path}"],
        5,
    )


def test_nothing_on_purpose_is_a_configuration() -> None:
    assert load_text(f"{HEAD}resources: {{}}\n", "c.yaml").resources == {}


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = find_problems(
        render_config("devices:\n- glob: x\n  typ: char\nreplicas: many\nallocate: {env: {1A: '${nme}'}}")
    )
    assert [(one.code, one.location.line) for one in found] == [
        (ErrorCode.GLOB, 6),
        (ErrorCode.UNKNOWN_KEY, 7),
        (ErrorCode.WRONG_TYPE, 8),
        (ErrorCode.NAME, 9),
        (ErrorCode.UNKNOWN_ATTRIBUTE, 9),
    ]
