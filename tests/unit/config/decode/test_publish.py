"""``serve`` and ``publish``: the API of a resource, and what Dynamic Resource Allocation learns about its devices.

The golden texts of GP022 have every refusal.
"""

import pytest

from genplug.config.files import ConfigFile
from genplug.config.load import load_text, load_texts
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.model import AttributeType, PublishSpec, Serve
from tests.support.configs import (
    CONFIG_HEADER,
    DEVICES,
    NAME,
    find_codes,
    find_diagnostics,
    load_resource,
    marked_text,
    render_config,
)

DRA = f"{DEVICES}\nserve: dra\n"


def test_resource_is_served_by_the_device_plugin_api_by_default() -> None:
    resource = load_resource(DEVICES)
    assert (resource.serve, resource.publish) == (Serve.DEVICE_PLUGIN, PublishSpec())


def test_serve_comes_from_the_defaults_and_from_the_file_of_a_node() -> None:
    text = CONFIG_HEADER + f"defaults: {{serve: dra}}\nresources: {{a.io/x: {{{DEVICES}}}, a.io/y: {{{DEVICES}}}}}\n"
    node = CONFIG_HEADER + "resources: {a.io/y: {serve: devicePlugin}}\n"
    resources = load_texts((ConfigFile("c.yaml", text), ConfigFile("node.a.yaml", node))).resources
    assert {name: resource.serve for name, resource in resources.items()} == {
        "a.io/x": Serve.DRA,
        "a.io/y": Serve.DEVICE_PLUGIN,
    }


def test_serve_by_both_apis_is_an_error() -> None:
    (diagnostic,) = find_diagnostics(render_config(f"{DEVICES}\nserve: both"))
    assert (diagnostic.code, marked_text(diagnostic)) == (ErrorCode.WRONG_VALUE, "both")
    assert diagnostic.expected == "one of devicePlugin, dra"


def test_attributes_have_a_type_and_keep_their_order() -> None:
    body = """\
publish:
  attributes:
    model: "${attr.model|default:unknown}"
    ports: {int: "${attr.port_count}"}
    removable: {bool: "${attr.removable}", optional: true}
    k8s.cni.cncf.io/deviceID: {string: "${pci.address}"}
    firmware: {version: "${attr.fw}"}
"""
    attributes = load_resource(DRA + body).publish.attributes
    assert [(each.name, each.value.text, each.type, each.optional) for each in attributes] == [
        ("model", "${attr.model|default:unknown}", AttributeType.STRING, False),
        ("ports", "${attr.port_count}", AttributeType.INT, False),
        ("removable", "${attr.removable}", AttributeType.BOOL, True),
        ("k8s.cni.cncf.io/deviceID", "${pci.address}", AttributeType.STRING, False),
        ("firmware", "${attr.fw}", AttributeType.VERSION, False),
    ]


def test_values_of_yaml_are_constants() -> None:
    body = "publish: {attributes: {a: {int: 4}, b: {bool: true}, c: {int: 2.0}}, capacity: {d: 8, e: 16Gi}}"
    publish = load_resource(DRA + body).publish
    assert [each.value.text for each in publish.attributes] == ["4", "true", "2"]
    assert [(each.name, each.quantity.text) for each in publish.capacity] == [("d", "8"), ("e", "16Gi")]


def test_attributes_refer_to_custom_attributes() -> None:
    body = """\
devices: [{glob: /dev/x*, attributes: {fw: {path: "${sysfs}/fw_version"}}}]
serve: dra
publish: {attributes: {firmware: {version: "${fw}"}}}
"""
    assert load_resource(body).publish.attributes[0].value.names == {"fw"}
    assert find_codes(body.replace("${fw}", "${fv}")) == [ErrorCode.UNKNOWN_ATTRIBUTE]


def test_publish_of_the_defaults_merges_with_that_of_a_resource() -> None:
    text = f"""\
{CONFIG_HEADER}
defaults: {{serve: dra, publish: {{attributes: {{a: "1", b: "2"}}}}}}
resources: {{{NAME}: {{{DEVICES}, publish: {{attributes: {{b: null, c: "3"}}}}}}}}
"""
    attributes = load_text(text, "c.yaml").resources[NAME].publish.attributes
    assert [each.name for each in attributes] == ["a", "c"]


def test_owner_of_a_device_node_does_not_require_inject_cdi() -> None:
    nodes = "devices: [{glob: /dev/x*, nodes: [{path: '${path}', owner: 1000}]}]\n"
    assert find_codes(nodes) == [ErrorCode.CONFLICT]
    assert find_codes(f"{nodes}serve: dra") == []


@pytest.mark.parametrize("written", ["${name}", "x${index}", "card-${sriov.vfIndex}"])
def test_verbatim_id_can_be_a_dns_label(written: str) -> None:
    assert find_codes(f"devices: [{{glob: /dev/x*, id: '{written}', verbatimId: true}}]\nserve: dra") == []


@pytest.mark.parametrize("name", ["a.io/" + 59 * "x", "a.io/" + 59 * "x" + "-${name}"])
def test_resource_name_has_at_most_64_characters(name: str) -> None:
    errors = find_diagnostics(render_config(DRA, name))
    assert [error.code for error in errors] == ([ErrorCode.DRA] if "$" in name else [])


@pytest.mark.parametrize(("number", "codes"), [(27, []), (28, [ErrorCode.DRA])])
def test_device_has_at_most_27_attributes_and_capacities_of_the_configuration(
    number: int, codes: list[ErrorCode]
) -> None:
    attributes = ", ".join(f"a{count}: '{count}'" for count in range(number - 1))
    assert find_codes(f"{DRA}publish: {{attributes: {{{attributes}}}, capacity: {{memory: 1}}}}") == codes
