"""``replicas``, ``tokens`` and ``slices``: how often a resource lists a device."""

import pytest

from genplug.config.load import load_text
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.template import Template
from tests.support.configs import CONFIG_HEADER, DEVICES, find_codes, find_diagnostics, load_resource, render_config

SLICES = "slices: '${attr.core_count}'"


def test_resource_has_replicas_or_tokens_or_slices() -> None:
    for body, expected in (
        ("replicas: 3", (3, None, None)),
        ("tokens: 3", (1, 3, None)),
        ("slices: 3", (1, None, "3")),
    ):
        found = load_resource(f"{DEVICES}\n{body}")
        assert (found.replicas, found.tokens, found.slices.text if found.slices else None) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("replicas: 2\ntokens: 2", "replicas and tokens are mutually exclusive"),
        ("replicas: 2\nslices: 2", "replicas and slices are mutually exclusive"),
        (f"{SLICES}\ntokens: 2", "slices and tokens are mutually exclusive"),
        ("slices: 2\ntokens: 2\nreplicas: 2", "slices and tokens are mutually exclusive"),
    ],
)
def test_conflicting_counts_are_reported_with_both_locations(written: str, message: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(f"{DEVICES}\n{written}"))
    assert (diagnostic.code, diagnostic.location.line) == (ErrorCode.CONFLICT, 7)
    assert diagnostic.related_location is not None
    assert diagnostic.related_location.line == 6
    assert diagnostic.message.startswith(message)


def test_null_removes_a_count_of_the_defaults() -> None:
    text = CONFIG_HEADER + f"defaults: {{replicas: 2}}\nresources: {{a.io/x: {{{DEVICES}, slices: 2%s}}}}\n"
    assert [diagnostic.code for diagnostic in find_diagnostics(text % "")] == [ErrorCode.CONFLICT]
    found = load_text(text % ", replicas: null", "c.yaml").resources["a.io/x"]
    assert (found.replicas, found.slices) == (1, Template.parse("2"))


@pytest.mark.parametrize("written", ["1", "1000", "'${attr.core_count}'", "'${attr.a|default:4}'", "'1${index}'"])
def test_slices_are_a_number_or_a_template(written: str) -> None:
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
def test_invalid_slices_are_reported_once(written: str, expected: ErrorCode) -> None:
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
def test_slice_is_available_only_in_a_resource_with_slices(allocate: str) -> None:
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
        # These are rendered for each device, not for each slice.
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '/x/${{slice}}', containerPath: /x}}]}}",
        f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /x, containerPath: '/x/${{slice}}'}}]}}",
        f"{DEVICES}\npreStart: {{exec: {{command: [/opt/reset, '${{slice}}']}}}}",
    ],
)
def test_slice_is_unavailable_in_keys_of_a_whole_device(body: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(f"{body}\nslices: 2"))
    assert (diagnostic.code, diagnostic.message) == (
        ErrorCode.UNKNOWN_ATTRIBUTE,
        "'slice', the number of a slice, is not available here",
    )


def test_slices_cannot_refer_to_slice() -> None:
    assert find_codes(f"{DEVICES}\nslices: '${{slice}}'") == [ErrorCode.UNKNOWN_ATTRIBUTE]


def test_defaults_with_slice_need_slices_in_every_resource() -> None:
    text = CONFIG_HEADER + (
        "defaults: {allocate: {env: {A: '${slice}'}}}\n"
        f"resources: {{a.io/x: {{{DEVICES}, slices: 2}}, a.io/y: {{{DEVICES}%s}}}}\n"
    )
    assert find_diagnostics(text % ", slices: 3") == ()
    # a.io/y has no slices, but the template of the defaults refers to them.
    (diagnostic,) = find_diagnostics(text % "")
    assert (diagnostic.code, str(diagnostic.location)) == (ErrorCode.UNKNOWN_ATTRIBUTE, "c.yaml:3:35")
