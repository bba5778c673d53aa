"""Edges that real files reach: long values, paths written in two ways, other people's objects, marks at the end."""

import pytest

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, ErrorCode
from genplug.config.files import ConfigFile, decode_utf8
from genplug.config.load import load_text, load_texts
from genplug.config.manifest import find_manifests
from tests.support.configs import DEVICES, HEAD, find_codes, find_problems, load_resource, render_config

CONFIG_MAP = f"""\
kind: ConfigMap
data:
  a.yaml: '{HEAD.splitlines()[0]}'
  a.yaml: ''
"""


@pytest.mark.parametrize(
    ("written", "passes", "fails"),
    [
        ('"{ttyUSB,ttyACM}*"', ["ttyUSB0", "ttyacm1"], ["ttyS0", "{ttyUSB,ttyACM}0"]),
        ('"{0x10de,0x1002}"', ["10de", "0x1002"], ["10df"]),
        ('{notIn: "x{0..2}"}', ["x3"], ["x0", "x2"]),
    ],
)
def test_a_selector_has_the_alternatives_of_a_glob(written: str, passes: list[str], fails: list[str]) -> None:
    (condition,) = load_resource(f"devices: [{{glob: /dev/x, where: {{name: {written}}}}}]").sources[0].where
    assert all(condition.selector.accepts((one,)) for one in passes)
    assert not any(condition.selector.accepts((one,)) for one in fails)


@pytest.mark.parametrize("written", ["a[b", "[^a]", "{a", "a}", "{a}", "a[9-0]", "{0..9999}"])
@pytest.mark.parametrize("form", ["'{}'", "[x, '{}']", "{{in: ['{}']}}", "{{notIn: '{}'}}"])
def test_a_selector_that_could_match_nothing_is_refused_where_it_is_written(written: str, form: str) -> None:
    (problem,) = find_problems(render_config(f"devices: [{{glob: /dev/x, where: {{name: {form.format(written)}}}}}]"))
    assert problem.code is ErrorCode.GLOB
    at = problem.location.column - 1 - problem.line.index(written)
    assert 0 <= at < len(written)


@pytest.mark.parametrize("other", ["/opt/lib", "/opt/lib/", "/opt//lib", "/opt/./lib"])
def test_two_mounts_at_one_path_are_refused_however_it_is_written(other: str) -> None:
    mounts = f"[{{hostPath: /a, containerPath: /opt/lib}}, {{hostPath: /b, containerPath: {other}}}]"
    assert find_codes(f"{DEVICES}\nallocate: {{mounts: {mounts}}}") == [ErrorCode.CONFLICT]


@pytest.mark.parametrize(
    ("length", "expected"), [(131_071 - len("A="), []), (131_072 - len("A="), [ErrorCode.WRONG_VALUE])]
)
def test_no_variable_is_longer_than_a_program_can_be_started_with(length: int, expected: list[ErrorCode]) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {{env: {{A: {'x' * length}}}}}") == expected


def test_no_answer_is_larger_than_the_kubelet_takes() -> None:
    files = [ConfigFile("0.yaml", render_config(DEVICES))]
    for number in range(5):
        variables = "".join(f"        V{number}{one}: {'x' * 130_000}\n" for one in range(8))
        text = f"resources:\n  example.com/x:\n    allocate:\n      env:\n{variables}"
        files.append(ConfigFile(f"{number + 1}.yaml", text))
    assert len(load_texts(files[:5]).resources["example.com/x"].allocate.env) == 32
    with pytest.raises(ConfigInvalidError, match="4 MiB that the kubelet accepts"):
        load_texts(files)


@pytest.mark.parametrize("end", ["---\n", "...\n", "---\n# nothing\n", "---\n---\n"])
def test_a_mark_of_documents_at_the_end_begins_nothing(end: str) -> None:
    assert list(load_text(render_config(DEVICES) + end, "c.yaml").resources) == ["example.com/x"]


def test_a_file_of_nothing_but_marks_is_empty() -> None:
    assert [one.code for one in find_problems("---\n---\n")] == [ErrorCode.NO_RESOURCES]


def test_a_policy_is_told_to_be_one_and_not_a_slip_or_a_bad_configuration() -> None:
    (problem,) = find_problems("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nresources: ['*']\n")
    assert (problem.code, problem.hint) == (
        ErrorCode.WRONG_VERSION,
        "a policy is not part of the configuration that it limits: pass its file with --policy",
    )


def test_a_long_value_is_not_repeated_at_length() -> None:
    (problem,) = find_problems(render_config(f"devices: [{{glob: /dev/{'x' * 5000}**}}]"))
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(render_config(f"devices: [{{glob: /dev/{'x' * 5000}**}}]"), "c.yaml")
    assert len(problem.message) > 5000
    assert max(map(len, str(caught.value).splitlines())) <= 401
    assert "c.yaml:5:5027: error[GP011]" in str(caught.value)
    assert "'**' must be a complete path segment" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "location"),
    [
        (b"\xff", "f:1:1"),
        (b"\xef\xbb\xbf\x9d", "f:1:1"),
        (b"\xef\xbb\xbfa\n\xc3\xa9\xff", "f:2:2"),
        (b"\xef\xbb", "f:1:1"),
    ],
)
def test_a_byte_that_is_no_text_is_pointed_at_behind_a_byte_order_mark_too(content: bytes, location: str) -> None:
    found = Diagnostics()
    assert decode_utf8(content, "f", found) is None
    assert [(one.code, str(one.location)) for one in found.found] == [(ErrorCode.UNREADABLE, location)]


def test_a_config_map_with_a_key_twice_is_refused_and_that_of_other_people_is_not() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        find_manifests(CONFIG_MAP, "cm.yaml")
    assert [(one.code, str(one.location), str(one.related_location)) for one in caught.value.problems] == [
        (ErrorCode.DUPLICATE_KEY, "cm.yaml:4:3", "cm.yaml:3:3")
    ]
    ours = f"kind: ConfigMap\ndata:\n  a.yaml: |\n    {HEAD.splitlines()[0]}\n"
    assert len(find_manifests(f"{ours}---\n{CONFIG_MAP.replace('genplug.io', 'x')}", "cm.yaml")) == 1


@pytest.mark.parametrize("text", ["kind: ConfigMap\ndata: {", "kind: ConfigMap\ndata: [\n", "kind: ConfigMap\n\n\n- "])
def test_a_manifest_that_ends_in_the_middle_is_a_problem_and_no_traceback(text: str) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        find_manifests(text, "cm.yaml")
    assert {one.code for one in caught.value.problems} == {ErrorCode.SYNTAX}


def refused(*texts: str) -> list[tuple[ErrorCode, str]]:
    with pytest.raises(ConfigInvalidError) as caught:
        load_texts([ConfigFile(f"{number}.yaml", text) for number, text in enumerate(texts)])
    return [(one.code, str(one.location)) for one in caught.value.problems]


def test_a_file_that_cannot_be_read_makes_the_others_no_worse() -> None:
    # Without the first, the second would lack its version, its kind and its devices.
    assert refused(render_config(DEVICES) + "  - x", "resources: {example.com/x: {replicas: 2}}") == [
        (ErrorCode.SYNTAX, "0.yaml:6:3")
    ]


def test_a_wrong_version_is_told_even_of_a_file_that_another_covers() -> None:
    assert refused("apiVersion: genplug.io/v2\n", render_config(DEVICES)) == [(ErrorCode.WRONG_VERSION, "0.yaml:1:13")]


def test_the_sum_tells_two_orders_apart() -> None:
    pairs = [f"  example.com/{name}: {{devices: [{{glob: /dev/x}}]}}\n" for name in "ab"]
    one, other = (f"{HEAD}resources:\n{''.join(two)}" for two in (pairs, reversed(pairs)))
    # Of two resources that claim one node, the first keeps it.
    assert load_text(one, "c.yaml").sha256 != load_text(other, "c.yaml").sha256


def test_the_sum_is_over_what_is_meant_and_not_over_how_it_is_written() -> None:
    written = ("devices: [{glob: /dev/x*}]", "# x\ndevices:\n- 'glob': \"/dev/x*\"", "devices: [{glob: /dev/y*}]")
    first, same, other = (load_text(render_config(one), "c.yaml").sha256 for one in written)
    assert first == same != other
