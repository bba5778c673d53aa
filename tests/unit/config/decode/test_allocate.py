"""``allocate``: environment variables, mounts and CDI devices, and the limits of their sizes."""

import pytest

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile
from genplug.config.load import load_text, load_texts
from genplug.spec.diagnostic import DiagnosticCode, ErrorCode
from genplug.spec.policy import Policy
from tests.support.configs import CONFIG_HEADER, DEVICES, find_codes, find_diagnostics, load_resource, render_config


@pytest.mark.parametrize(("written", "by_cdi"), [("", False), ("inject: nodes", False), ("inject: cdi", True)])
def test_device_nodes_are_injected_without_cdi_by_default(written: str, *, by_cdi: bool) -> None:
    assert load_resource(f"{DEVICES}\nallocate: {{{written}}}").allocate.injects_by_cdi is by_cdi


def test_cdi_devices_keep_their_order() -> None:
    found = load_resource(f"{DEVICES}\nallocate: {{cdiDevices: ['b.io/x=${{index}}', a.io/x=all]}}")
    assert [device.text for device in found.allocate.cdi_devices] == ["b.io/x=${index}", "a.io/x=all"]


@pytest.mark.parametrize("other", ["/opt/lib", "/opt/lib/", "/opt//lib", "/opt/./lib"])
def test_mounts_at_equivalent_container_paths_are_rejected(other: str) -> None:
    mounts = f"[{{hostPath: /a, containerPath: /opt/lib}}, {{hostPath: /b, containerPath: {other}}}]"
    assert find_codes(f"{DEVICES}\nallocate: {{mounts: {mounts}}}") == [ErrorCode.CONFLICT]


@pytest.mark.parametrize(
    ("length", "expected"), [(131_071 - len("A="), []), (131_072 - len("A="), [ErrorCode.WRONG_VALUE])]
)
def test_environment_variable_over_the_size_limit_is_rejected(length: int, expected: list[ErrorCode]) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {{env: {{A: {'x' * length}}}}}") == expected


def test_62_response_over_the_message_size_limit_is_rejected() -> None:
    files = [ConfigFile("0.yaml", render_config(DEVICES))]
    for number in range(5):
        variables = "".join(f"        V{number}{index}: {'x' * 130_000}\n" for index in range(8))
        text = f"resources:\n  example.com/x:\n    allocate:\n      env:\n{variables}"
        files.append(ConfigFile(f"{number + 1}.yaml", text))
    assert len(load_texts(files[:5]).resources["example.com/x"].allocate.env) == 32
    with pytest.raises(ConfigInvalidError, match="4 MiB that the kubelet accepts"):
        load_texts(files)


@pytest.mark.parametrize(
    ("allocate", "expected"),
    [
        ("{env: {A: 1}}", ErrorCode.WRONG_TYPE),
        ("{env: {1A: x}}", ErrorCode.NAME),
        ("{annotations: {cdi.k8s.io/x: x}}", ErrorCode.NAME),
        ("{mounts: [{hostPath: /a, containerPath: /}]}", ErrorCode.PATH),
        ("{cdiDevices: [a.io=x]}", ErrorCode.NAME),
        ("{cdiDevices: [a.io/b=]}", ErrorCode.NAME),
    ],
)
def test_invalid_allocate_is_reported_once(allocate: str, expected: ErrorCode) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {allocate}") == [expected]


GROUPS_POLICY = Policy(groups=(44, 992))


def find_codes_of_groups(allocate: str) -> list[DiagnosticCode]:
    body = render_config(f"{DEVICES}\nallocate: {allocate}")
    return [diagnostic.code for diagnostic in find_diagnostics(body, GROUPS_POLICY)]


def test_supplemental_groups_are_decoded() -> None:
    text = render_config(f"{DEVICES}\nallocate: {{inject: cdi, supplementalGroups: [44, 992]}}")
    [resource] = load_text(text, "c.yaml", GROUPS_POLICY).resources.values()
    assert resource.allocate.supplemental_groups == (44, 992)


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ("[0]", ErrorCode.WRONG_VALUE),
        ("[video]", ErrorCode.WRONG_TYPE),
        ("44", ErrorCode.WRONG_TYPE),
        ("[44, 44]", ErrorCode.WRONG_VALUE),
        ("[44, 6]", ErrorCode.NOT_ALLOWED),
    ],
)
def test_invalid_supplemental_groups_are_reported(groups: str, code: ErrorCode) -> None:
    assert find_codes_of_groups(f"{{inject: cdi, supplementalGroups: {groups}}}") == [code]


def test_supplemental_groups_without_cdi_are_reported() -> None:
    assert find_codes_of_groups("{supplementalGroups: [44]}") == [ErrorCode.CONFLICT]


def test_defaults_can_have_supplemental_groups_for_resources_with_cdi() -> None:
    text = CONFIG_HEADER + (
        "defaults: {allocate: {supplementalGroups: [44]}}\n"
        "resources: {example.com/x: {devices: [{glob: /dev/x}], allocate: {inject: cdi}}}\n"
    )
    assert find_diagnostics(text, GROUPS_POLICY) == ()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("'A_${resource}': x", []),
        ("'${resource}': x", []),
        ("'A_${name|lower}_B': {each: '${path}'}", []),
        ("A: {each: '${path}', join: '', prefix: '[', suffix: ']'}", []),
        ("A: '${resource}'", []),
        ("'A_${nme}': x", [ErrorCode.UNKNOWN_ATTRIBUTE]),
        ("'A_${name': x", [ErrorCode.TEMPLATE]),
        ("'A ${name}': x", [ErrorCode.NAME]),
        ("'1${name}': x", [ErrorCode.NAME]),
        ("A: {}", [ErrorCode.MISSING_KEY]),
        ("A: {join: ','}", [ErrorCode.MISSING_KEY]),
        ("A: {each: '${nme}'}", [ErrorCode.UNKNOWN_ATTRIBUTE]),
        ("A: {each: x, separator: ','}", [ErrorCode.UNKNOWN_KEY]),
        ("A: {each: x, join: 1}", [ErrorCode.WRONG_TYPE]),
        ("A: [x]", [ErrorCode.WRONG_TYPE]),
    ],
)
def test_name_and_text_of_a_variable_are_checked(env: str, expected: list[ErrorCode]) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {{env: {{{env}}}}}") == expected


@pytest.mark.parametrize("key", ["id: '${resource}'", "groupBy: '${resource}'", "with: ['/dev/${resource}']"])
def test_name_of_the_resource_is_available_for_containers_only(key: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(f"devices: [{{glob: /dev/x*, {key}}}]"))
    assert diagnostic.message == "'resource', the name of the resource, is not available here"
