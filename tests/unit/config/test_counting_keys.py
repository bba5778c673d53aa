"""How often a device is listed and under which names: ``slices``, ``aliases``, names of templates; ``topology``."""

import pytest

from genplug.config.diagnostics import ErrorCode
from genplug.config.load import load_text
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.configs import DEVICES, HEAD, find_codes, find_problems, load_resource, render_config

SLICES = "slices: '${attr.core_count}'"


def said(text: str) -> list[tuple[ErrorCode, str, str]]:
    """Return the codes, places and messages of what is wrong with a configuration."""
    return [(one.code, str(one.location).partition(":")[2], one.message) for one in find_problems(text)]


# How often


def test_a_resource_is_counted_in_one_way() -> None:
    for body, ways in (("replicas: 3", (3, None, None)), ("tokens: 3", (1, 3, None)), ("slices: 3", (1, None, "3"))):
        found = load_resource(f"{DEVICES}\n{body}")
        assert (found.replicas, found.tokens, found.slices.text if found.slices else None) == ways


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("replicas: 2\ntokens: 2", "replicas and tokens are mutually exclusive"),
        ("replicas: 2\nslices: 2", "replicas and slices are mutually exclusive"),
        (f"{SLICES}\ntokens: 2", "slices and tokens are mutually exclusive"),
        ("slices: 2\ntokens: 2\nreplicas: 2", "slices and tokens are mutually exclusive"),
    ],
)
def test_two_ways_of_counting_are_refused_and_both_are_shown(written: str, message: str) -> None:
    (problem,) = find_problems(render_config(f"{DEVICES}\n{written}"))
    assert (problem.code, problem.location.line) == (ErrorCode.CONFLICT, 7)
    assert problem.related_location is not None
    assert problem.related_location.line == 6
    assert problem.message.startswith(message)


def test_a_way_of_counting_that_defaults_bring_is_removed_by_null() -> None:
    text = HEAD + f"defaults: {{replicas: 2}}\nresources: {{a.io/x: {{{DEVICES}, slices: 2%s}}}}\n"
    assert [one.code for one in find_problems(text % "")] == [ErrorCode.CONFLICT]
    found = load_text(text % ", replicas: null", "c.yaml").resources["a.io/x"]
    assert (found.replicas, found.slices) == (1, Template.parse("2"))


@pytest.mark.parametrize("written", ["1", "1000", "'${attr.core_count}'", "'${attr.a|default:4}'", "'1${index}'"])
def test_slices_are_a_number_or_what_a_template_makes_of_each_device(written: str) -> None:
    found = load_resource(f"{DEVICES}\nslices: {written}").slices
    assert found is not None
    assert found.text == written.strip("'")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0", ErrorCode.WRONG_VALUE),
        ("-1", ErrorCode.WRONG_VALUE),
        ("1001", ErrorCode.WRONG_VALUE),
        ("two", ErrorCode.WRONG_VALUE),
        ("'4'", ErrorCode.WRONG_VALUE),
        ("''", ErrorCode.WRONG_VALUE),
        ("$${x}", ErrorCode.WRONG_VALUE),
        ("1.5", ErrorCode.WRONG_TYPE),
        ("true", ErrorCode.WRONG_TYPE),
        ("[2]", ErrorCode.WRONG_TYPE),
        ("'${attr.x'", ErrorCode.TEMPLATE),
        ("'${nme}'", ErrorCode.UNKNOWN_ATTRIBUTE),
    ],
)
def test_slices_that_are_no_number_are_refused_once(written: str, expected: ErrorCode) -> None:
    assert find_codes(f"{DEVICES}\nslices: {written}") == [expected]


@pytest.mark.parametrize(
    "allocate",
    [
        "{env: {A: '${slice}'}}",
        "{env: {A: '${slice|join:;}'}}",
        "{annotations: {a: '${slice}'}}",
        "{cdiDevices: ['a.io/b=${slice}']}",
    ],
)
def test_a_container_is_told_the_numbers_of_its_slices_where_there_are_any(allocate: str) -> None:
    body = f"{DEVICES}\nallocate: {allocate}"
    assert find_codes(f"{body}\nslices: 2") == []
    for other in ("", "\nreplicas: 2", "\ntokens: 2"):
        assert find_codes(body + other) == [ErrorCode.UNKNOWN_ATTRIBUTE]


@pytest.mark.parametrize(
    "body",
    [
        "devices: [{glob: /dev/x, id: '${slice}'}]",
        "devices: [{glob: /dev/x, groupBy: '${slice}'}]",
        "devices: [{glob: /dev/x, where: {slice: x}}]",
        "devices: [{glob: /dev/x, nodes: ['/dev/${slice}']}]",
        "devices: [{glob: /dev/x, nodes: [{path: /dev/x, as: '/dev/${slice}'}]}]",
        "devices: [{glob: /dev/x, attributes: {a: {path: '/x/${slice}'}}}]",
        "devices: [{glob: /dev/x, sysfs: '/sys/${slice}'}]",
        f"{DEVICES}\npreferredAllocation: {{by: '${{slice}}'}}",
        # These are made for each device, whichever of its slices a container has.
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '/x/${{slice}}', containerPath: /x}}]}}",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /x, containerPath: '/x/${{slice}}'}}]}}",
        f"{DEVICES}\npreStart: {{exec: {{command: [/opt/reset, '${{slice}}']}}}}",
    ],
)
def test_what_is_one_for_a_whole_device_has_no_slice(body: str) -> None:
    (problem,) = find_problems(render_config(f"{body}\nslices: 2"))
    assert (problem.code, problem.message) == (
        ErrorCode.UNKNOWN_ATTRIBUTE,
        "'slice', the number of a slice, is not available here",
    )


def test_slices_are_not_made_of_slices() -> None:
    assert find_codes(f"{DEVICES}\nslices: '${{slice}}'") == [ErrorCode.UNKNOWN_ATTRIBUTE]


def test_defaults_may_speak_of_slices_and_hold_for_resources_that_have_some() -> None:
    text = HEAD + (
        "defaults: {allocate: {env: {A: '${slice}'}}}\n"
        f"resources: {{a.io/x: {{{DEVICES}, slices: 2}}, a.io/y: {{{DEVICES}%s}}}}\n"
    )
    assert said(text % ", slices: 3") == []
    # a.io/y has no slices, and the text that speaks of them stands in the defaults.
    assert [(code, location) for code, location, _ in said(text % "")] == [(ErrorCode.UNKNOWN_ATTRIBUTE, "3:35")]


# Under which names


def test_aliases_are_more_names_of_a_resource_in_the_order_in_which_they_are_written() -> None:
    assert load_resource(f"{DEVICES}\naliases: [b.io/x, a.io/x]").aliases == ("b.io/x", "a.io/x")
    assert load_resource(f"{DEVICES}\naliases: []").aliases == load_resource(DEVICES).aliases == ()


@pytest.mark.parametrize(
    "alias", ["x", "a/b/c", "kubernetes.io/x", "requests.a.io/x", "'a.io/x-${name}'", "''", f"a.io/{'x' * 64}"]
)
def test_an_alias_is_a_resource_name_that_the_kubelet_takes(alias: str) -> None:
    assert find_codes(f"{DEVICES}\naliases: [{alias}]") == [ErrorCode.RESOURCE_NAME]


@pytest.mark.parametrize(
    ("x", "y", "taken"),
    [
        # A name is taken wherever its resource stands, an alias by the first that has it.
        ("[a.io/y]", "[]", ("5:12", "6:2")),
        ("[]", "[a.io/x]", ("7:12", "4:2")),
        ("[a.io/z]", "[a.io/z]", ("7:12", "5:12")),
        ("[a.io/z, a.io/z]", "[]", ("5:20", "5:12")),
        ("[a.io/x]", "[]", ("5:12", "4:2")),
    ],
)
def test_a_name_belongs_to_one_resource_once(x: str, y: str, taken: tuple[str, str]) -> None:
    text = f"{HEAD}resources:\n a.io/x: {{{DEVICES},\n aliases: {x}}}\n a.io/y: {{{DEVICES},\n aliases: {y}}}\n"
    (problem,) = find_problems(text)
    assert (problem.code, problem.message) == (
        ErrorCode.CONFLICT,
        f"{problem.message.split()[0]} is already used as a resource name",
    )
    assert problem.related_location is not None
    assert (str(problem.location), str(problem.related_location)) == tuple(f"c.yaml:{location}" for location in taken)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a.io/x", "tokens: 2", "a resource with tokens cannot have aliases"),
        ("'a.io/${name}'", "replicas: 2", "a resource with a templated name cannot have aliases"),
    ],
)
def test_a_pool_of_tokens_and_names_of_templates_have_no_aliases(name: str, more: str, message: str) -> None:
    assert said(render_config(f"{DEVICES}\n{more}\naliases: [b.io/x]", name)) == [(ErrorCode.CONFLICT, "7:5", message)]


@pytest.mark.parametrize("more", ["replicas: 2", "slices: 2", "share: {distinct: true}"])
def test_what_is_a_device_of_its_own_may_have_aliases(more: str) -> None:
    assert find_codes(f"{DEVICES}\n{more}\naliases: [b.io/x]") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("${name}/x", "the domain before '/' cannot contain a template"),
        ("x-${name}.io/x-${name}", "the domain before '/' cannot contain a template"),
        ("${name}", "the domain before '/' cannot contain a template"),
        ("a.io/x/${name}", "a resource name consists of a domain, one '/' and a name"),
        ("kubernetes.io/${name}", "names under kubernetes.io/ are reserved for Kubernetes"),
        ("a.io/" + "x" * 62 + "${name}${index}", "the part after '/' has 64 characters, at most 63 are allowed"),
        ("a.io/-${name}", "the part after '/' must consist of letters"),
        ("a.io/$${name}", "the part after '/' must consist of letters"),
    ],
)
def test_a_name_of_templates_that_no_device_could_fill_in_is_refused(name: str, message: str) -> None:
    ((code, location, told),) = said(render_config(DEVICES, f"'{name}'"))
    assert (code, location) == (ErrorCode.RESOURCE_NAME, "4:3")
    assert told.startswith(repr(name))
    assert f": {message}" in told


@pytest.mark.parametrize(
    "name", ["a.io/${name}", "a.io/x-${attr.model|lower}-y", "a.io/${model}", "a.io/" + "x" * 62 + "${name}"]
)
def test_a_name_of_templates_is_taken_and_filled_in_later(name: str) -> None:
    body = "devices: [{glob: /dev/x, attributes: {model: {path: /x}}}]"
    found = load_text(render_config(body, f"'{name}'"), "c.yaml").resources[name]
    assert found.name_template == Template.parse(name)
    assert found.configured_name == name


def test_what_name_devices_make_is_not_known_at_load_and_the_policy_not_asked() -> None:
    nothing = Policy(resources=())
    config = load_text(render_config(DEVICES, "'a.io/${name}'"), "c.yaml", nothing)
    assert list(config.resources) == list(config.restricted_by(nothing).resources) == ["a.io/${name}"]
    assert config.resources["a.io/${name}"].policy is nothing


# Where


@pytest.mark.parametrize(("written", "is_told"), [("", True), ("topology: auto", True), ("topology: none", False)])
def test_the_numa_node_is_told_unless_somebody_says_otherwise(written: str, *, is_told: bool) -> None:
    assert load_resource(f"{DEVICES}\n{written}").has_topology is is_told


@pytest.mark.parametrize("written", ["numa", "''"])
def test_of_topology_there_are_two_kinds(written: str) -> None:
    assert find_codes(f"{DEVICES}\ntopology: {written}") == [ErrorCode.WRONG_VALUE]
