"""DeviceClasses: which devices they select, and which names they have."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.device_class import build_device_classes, device_class_name
from tests.support.allocation import build_resource

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAMES = st.builds(
    "{}/{}{}{}".format,
    st.sampled_from(["a.example", "vendor-1.example.com"]),
    st.sampled_from("aZ9"),
    st.text("aZ9-_.", max_size=60),
    st.sampled_from("aZ9"),
)


def test_class_selects_the_devices_of_its_resource_and_driver() -> None:
    resource = replace(build_resource(), name="vendor.example/thing")
    assert list(build_device_classes(resource, "dra.example")) == [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "thing.vendor.example"},
            "spec": {
                "selectors": [
                    {
                        "cel": {
                            "expression": 'device.driver == "dra.example" && '
                            'device.attributes["dra.example"].resource == "vendor.example/thing"'
                        }
                    }
                ],
                "extendedResourceName": "vendor.example/thing",
            },
        }
    ]


def test_class_of_an_alias_selects_the_devices_of_the_resource() -> None:
    resource = replace(build_resource(), name="vendor.example/thing", aliases=("old.example/x", "old.example/y"))
    first, *aliases = build_device_classes(resource)
    assert [document["metadata"]["name"] for document in aliases] == ["x.old.example", "y.old.example"]
    assert [document["spec"]["extendedResourceName"] for document in aliases] == ["old.example/x", "old.example/y"]
    assert all(document["spec"]["selectors"] == first["spec"]["selectors"] for document in aliases)
    [selector] = first["spec"]["selectors"]
    assert selector["cel"]["expression"].startswith('device.driver == "genplug.io" && ')


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("vendor.example/thing", "thing.vendor.example"),
        ("vendor.example/Some_Thing", "some-thing.vendor.example"),
        ("vendor.example/a__b", "a-b.vendor.example"),
        ("vendor.example/A_.b", "a.b.vendor.example"),
        ("vendor.example/a._.b", "a.b.vendor.example"),
        ("vendor.example/1.5g", "1.5g.vendor.example"),
    ],
)
def test_name_of_a_class_has_the_name_before_the_domain(resource: str, name: str) -> None:
    assert device_class_name(resource) == name


@given(NAMES)
def test_name_of_a_class_is_a_dns_name_for_every_resource(resource: str) -> None:
    assert SUBDOMAIN.fullmatch(device_class_name(resource))
