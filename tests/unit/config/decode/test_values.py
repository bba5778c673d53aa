"""Paths and selectors in a configuration: absolute paths, and the location of an invalid glob."""

import pytest

from genplug.spec.diagnostic import ErrorCode
from tests.support.configs import DEVICES, find_codes, find_diagnostics, render_config

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
def test_path_must_be_absolute_without_parent_segments(path: str, expected: list[ErrorCode]) -> None:
    bodies = [
        f"devices: [{{glob: /dev/x, nodes: ['{path}']}}]",
        f"devices: [{{glob: /dev/x, nodes: [{{path: /dev/x, as: '{path}'}}]}}]",
        f"devices: [{{glob: /dev/x, with: ['{path}']}}]",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '{path}', containerPath: /x}}]}}",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /x, containerPath: '{path}'}}]}}",
    ]
    for body in bodies:
        assert find_codes(body) == expected


@pytest.mark.parametrize("written", ["a[b", "[^a]", "{a", "a}", "{a}", "a[9-0]", "{0..9999}"])
@pytest.mark.parametrize("form", ["'{}'", "[x, '{}']", "{{in: ['{}']}}", "{{notIn: '{}'}}"])
def test_invalid_glob_in_selector_is_rejected_at_its_location(written: str, form: str) -> None:
    (diagnostic,) = find_diagnostics(
        render_config(f"devices: [{{glob: /dev/x, where: {{name: {form.format(written)}}}}}]")
    )
    assert diagnostic.code is ErrorCode.GLOB
    at = diagnostic.location.column - 1 - diagnostic.line.index(written)
    assert 0 <= at < len(written)


@pytest.mark.parametrize(
    "written",
    ["{matches: '('}", "{matches: '(?=a)'}", r"{matches: '(a)\1'}", "{min: a}", "{max: 1Q}", "{min: 2, max: 1}"],
)
def test_invalid_or_contradictory_selector_is_rejected(written: str) -> None:
    assert find_codes(f"devices: [{{glob: /dev/x*, where: {{name: {written}}}}}]") == [ErrorCode.SELECTOR]


@pytest.mark.parametrize(
    "key",
    [
        "id: {}",
        "groupBy: {}",
        "with: [{}]",
        "nodes: [{{path: /dev/x, as: {}}}]",
        "sysfs: {}",
        "attributes: {{a: {{path: {}}}}}",
    ],
)
def test_template_that_grows_over_the_limit_is_rejected_at_load(key: str) -> None:
    text = '"/dev/${name' + "|replace:x:xxxxxxxxxx" * 8 + '}"'
    [diagnostic] = find_diagnostics(render_config(f"devices: [{{glob: /dev/x*, {key.format(text)}}}]"))
    assert diagnostic.code is ErrorCode.TEMPLATE
    assert "a value of 10000 characters with 'replace', at most 4096 are allowed" in diagnostic.message


def test_number_of_references_and_filters_of_a_configuration_is_limited() -> None:
    text = "${name" + "|lower" * 15 + "}"
    env = ", ".join(f"A{number}: '{text}'" for number in range(626))
    [diagnostic] = find_diagnostics(render_config(f"{DEVICES}\nallocate: {{env: {{{env}}}}}"))
    assert diagnostic.code is ErrorCode.LIMIT
    assert "more than 10000 references and filters of templates" in diagnostic.message
    assert diagnostic.key_path.endswith(".allocate.env.A625")
