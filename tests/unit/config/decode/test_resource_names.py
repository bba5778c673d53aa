"""Names of resources: valid names, names with templates, and aliases."""

import pytest

from genplug.config.load import load_text
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.names import resource_name_error
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.configs import CONFIG_HEADER, DEVICES, find_codes, find_diagnostics, load_resource, render_config

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


@pytest.mark.parametrize("name", GOOD_NAMES, ids=[name[:20] for name in GOOD_NAMES])
def test_09_resource_name_of_the_kubelet_is_accepted(name: str) -> None:
    assert list(load_text(render_config(DEVICES, f'"{name}"'), "c.yaml").resources) == [name]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[name[:20] or "empty" for name in BAD_NAMES])
def test_09_invalid_resource_name_is_rejected_with_the_reason(name: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(DEVICES, f'"{name}"'))
    assert diagnostic.code is ErrorCode.RESOURCE_NAME
    assert resource_name_error(name) in diagnostic.message


def test_aliases_keep_their_order() -> None:
    assert load_resource(f"{DEVICES}\naliases: [b.io/x, a.io/x]").aliases == ("b.io/x", "a.io/x")
    assert load_resource(f"{DEVICES}\naliases: []").aliases == load_resource(DEVICES).aliases == ()


@pytest.mark.parametrize(
    "alias", ["x", "a/b/c", "kubernetes.io/x", "requests.a.io/x", "'a.io/x-${name}'", "''", f"a.io/{'x' * 64}"]
)
def test_invalid_alias_is_rejected(alias: str) -> None:
    assert find_codes(f"{DEVICES}\naliases: [{alias}]") == [ErrorCode.RESOURCE_NAME]


@pytest.mark.parametrize(
    ("x", "y", "taken"),
    [
        # A resource name takes precedence over an alias at any location; of two aliases, the first does.
        ("[a.io/y]", "[]", ("5:12", "6:2")),
        ("[]", "[a.io/x]", ("7:12", "4:2")),
        ("[a.io/z]", "[a.io/z]", ("7:12", "5:12")),
        ("[a.io/z, a.io/z]", "[]", ("5:20", "5:12")),
        ("[a.io/x]", "[]", ("5:12", "4:2")),
    ],
)
def test_duplicate_name_or_alias_is_reported_with_both_locations(x: str, y: str, taken: tuple[str, str]) -> None:
    text = (
        f"{CONFIG_HEADER}resources:\n a.io/x: {{{DEVICES},\n aliases: {x}}}\n a.io/y: {{{DEVICES},\n aliases: {y}}}\n"
    )
    (diagnostic,) = find_diagnostics(text)
    assert (diagnostic.code, diagnostic.message) == (
        ErrorCode.CONFLICT,
        f"{diagnostic.message.split()[0]} is already used as a resource name",
    )
    assert diagnostic.related_location is not None
    assert (str(diagnostic.location), str(diagnostic.related_location)) == tuple(
        f"c.yaml:{location}" for location in taken
    )


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a.io/x", "tokens: 2", "a resource with tokens cannot have aliases"),
        ("'a.io/${name}'", "replicas: 2", "a resource with a templated name cannot have aliases"),
    ],
)
def test_alias_of_tokens_or_of_a_templated_name_is_rejected(name: str, more: str, message: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(f"{DEVICES}\n{more}\naliases: [b.io/x]", name))
    assert (diagnostic.code, diagnostic.message, str(diagnostic.location)) == (
        ErrorCode.CONFLICT,
        message,
        "c.yaml:7:5",
    )


@pytest.mark.parametrize("more", ["replicas: 2", "slices: 2", "share: {distinct: true}"])
def test_resource_with_shared_devices_can_have_aliases(more: str) -> None:
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
def test_invalid_templated_name_is_rejected_with_the_reason(name: str, message: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(DEVICES, f"'{name}'"))
    assert (diagnostic.code, str(diagnostic.location)) == (ErrorCode.RESOURCE_NAME, "c.yaml:4:3")
    assert diagnostic.message.startswith(repr(name))
    assert f": {message}" in diagnostic.message


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
def test_invalid_template_in_a_name_is_reported(name: str, code: ErrorCode) -> None:
    found = find_diagnostics(f"{CONFIG_HEADER}resources:\n  '{name}': {{devices: [{{glob: /dev/x}}]}}\n")
    assert [diagnostic.code for diagnostic in found] == [code]


@pytest.mark.parametrize(
    "name", ["a.io/${name}", "a.io/x-${attr.model|lower}-y", "a.io/${model}", "a.io/" + "x" * 62 + "${name}"]
)
def test_templated_name_is_kept_as_template(name: str) -> None:
    body = "devices: [{glob: /dev/x, attributes: {model: {path: /sys/x}}}]"
    found = load_text(render_config(body, f"'{name}'"), "c.yaml").resources[name]
    assert found.name_template == Template.parse(name)
    assert found.configured_name == found.name == name


def test_templated_name_is_not_checked_against_the_policy_at_load() -> None:
    nothing = Policy(resources=())
    config = load_text(render_config(DEVICES, "'a.io/${name}'"), "c.yaml", nothing)
    assert list(config.resources) == list(config.restricted_by(nothing).resources) == ["a.io/${name}"]
    assert config.resources["a.io/${name}"].policy is nothing
