"""Published devices: what Dynamic Resource Allocation learns about the devices of an offer."""

import re
from collections.abc import Mapping
from operator import mul

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.published import (
    AttributeValue,
    LeftOut,
    PublishedResource,
    ResourcePublisher,
    Taint,
    Version,
    publish_resource,
)
from genplug.hardware.device_ids import device_id
from genplug.hardware.inventory import Device, sort_devices
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.spec.model import (
    AttributeSpec,
    AttributeType,
    CapacitySpec,
    Preference,
    PreferenceSpec,
    PublishSpec,
    Resource,
    Serve,
)
from genplug.spec.published_values import published_name_error, value_error
from genplug.spec.quantity import canonicalize_quantity
from genplug.spec.template import Template, Values, merge_values
from tests.support.allocation import DeviceTree, build_resource, mark_healthy, mark_unhealthy, offer_devices
from tests.support.hardware import LOCATION, NAME
from tests.support.work import count_lines

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
ADDRESS = "0000:3b:00.0"


def make_device(key: str, attributes: Values | None = None, **fields: object) -> Device:
    """Return a device that is not on any file system."""
    return replace(Device(key, key, NAME, LOCATION, (f"/dev/{key}",), (), (), attributes or {}), **fields)


def serve(resource: Resource | None = None, **templates: str | tuple[AttributeType, str]) -> Resource:
    """Return a resource that DRA serves, with these attributes."""
    attributes = tuple(
        AttributeSpec(LOCATION, name, Template.parse(value), AttributeType.STRING)
        if isinstance(value, str)
        else AttributeSpec(LOCATION, name, Template.parse(value[1]), value[0])
        for name, value in templates.items()
    )
    return replace(resource or build_resource(), serve=Serve.DRA, publish=PublishSpec(attributes))


def publish(resource: Resource, *devices: Device | DeviceHealth) -> PublishedResource:
    healths = (entry if isinstance(entry, DeviceHealth) else mark_healthy(entry)[0] for entry in devices)
    return publish_resource(build_offer(resource, tuple(healths)))


def attributes_of(resource: Resource, device: Device) -> Mapping[str, AttributeValue]:
    (published,) = publish(resource, device).devices
    return published.attributes


def reason_of(resource: Resource, device: Device | DeviceHealth) -> str:
    found = publish(resource, device)
    assert not found.devices
    return found.left_out[0].reason


def test_published_resource_has_the_names_and_ids_of_its_devices() -> None:
    found = publish(serve(), make_device("x0"))
    assert found.resource == NAME
    assert [(device.name, device.device_id) for device in found.devices] == [("x0", "x0")]


def test_every_device_has_its_resource_and_its_id() -> None:
    assert attributes_of(serve(), make_device("x0")) == {"resource": NAME, "device": "x0"}


def test_device_of_replicas_and_slices_is_the_physical_device() -> None:
    for resource, ids in (
        (build_resource(replicas=2), ["x0-r0", "x0-r1"]),
        (replace(build_resource(), slices=Template.parse("2")), ["x0-s0", "x0-s1"]),
    ):
        published = publish(serve(resource), make_device("x0", slices=2)).devices
        assert [device.name for device in published] == ids
        assert {device.attributes["device"] for device in published} == {"x0"}


def test_tokens_have_the_values_of_all_devices_and_one_device_attribute() -> None:
    resource = serve(build_resource(tokens=3), model="${model}", name="${name}")
    x0 = make_device("x0", {"model": ("a",), "name": ("x0",)}, numa=(1,))
    x1 = make_device("x1", {"model": ("a",), "name": ("x1",)}, numa=(1,))
    published = publish(resource, x0, x1).devices
    assert [device.name.rpartition("-")[2] for device in published] == ["t0", "t1", "t2"]
    assert [device.device_id for device in published] == [device.name for device in published]
    (attributes,) = {tuple(device.attributes.items()) for device in published}
    assert dict(attributes) == {
        "resource": NAME,
        "device": published[0].name.removesuffix("-t0"),
        "resource.kubernetes.io/numaNode": 1,
        "model": "a",
        "name": "x0,x1",
    }


def test_standard_attributes_have_one_value() -> None:
    values = {"pci.address": (ADDRESS,), "pci.root": ("pci0000:3a",)}
    assert attributes_of(serve(), make_device("x0", values, numa=(1,))) == {
        "resource": NAME,
        "device": "x0",
        "resource.kubernetes.io/pciBusID": ADDRESS,
        "resource.kubernetes.io/pcieRoot": "pci0000:3a",
        "resource.kubernetes.io/numaNode": 1,
    }
    several = merge_values(({**values}, {**values, "pci.address": ("0000:3b:00.1",)}))
    assert attributes_of(serve(), make_device("x0", several, numa=(0, 1))) == {
        "resource": NAME,
        "device": "x0",
        "resource.kubernetes.io/pcieRoot": "pci0000:3a",
    }


def test_attributes_have_the_type_of_the_configuration() -> None:
    resource = serve(
        model="${model}",
        ports=(AttributeType.INT, "${ports}"),
        vendor=(AttributeType.INT, "0x10de"),
        zero=(AttributeType.INT, "0"),
        removable=(AttributeType.BOOL, "${removable}"),
        fast=(AttributeType.BOOL, "Y"),
        firmware=(AttributeType.VERSION, "${fw}.0"),
    )
    values = {"model": ("A100",), "ports": ("2",), "removable": ("N",), "fw": ("1.2",)}
    assert list(attributes_of(resource, make_device("x0", values)).items())[2:] == [
        ("model", "A100"),
        ("ports", 2),
        ("vendor", 0x10DE),
        ("zero", 0),
        ("removable", False),
        ("fast", True),
        ("firmware", Version("1.2.0")),
    ]


def test_capacity_is_in_the_form_of_the_api_server() -> None:
    capacity = CapacitySpec(LOCATION, "memory", Template.parse("${mem}Mi"))
    resource = replace(serve(), publish=PublishSpec(capacity=(capacity,)))
    (published,) = publish(resource, make_device("x0", {"mem": ("16384",)})).devices
    assert published.capacity == {"memory": "16Gi"}
    assert reason_of(resource, make_device("x0", {"mem": ("many",)})) == (
        "publish.capacity.memory renders to 'manyMi', which is not a quantity, for example 8 or 16Gi"
    )
    assert (
        reason_of(resource, make_device("x0"))
        == "publish.capacity.memory refers to 'mem', which the device does not have"
    )


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (AttributeType.STRING, "${a}", "refers to 'a', which the device does not have"),
        (AttributeType.STRING, 65 * "x", f"renders to '{64 * 'x'}…', which has 65 bytes, at most 64 are allowed"),
        (AttributeType.INT, 64 * "x", f"renders to '{64 * 'x'}', which is not an integer of 64 bits"),
        (AttributeType.INT, "four", "renders to 'four', which is not an integer of 64 bits"),
        (AttributeType.BOOL, "", "renders to '', which is not a boolean: true or false, 1 or 0, Y or N"),
        (AttributeType.VERSION, "2.1", "renders to '2.1', which is not a semantic version, for example 2.1.0"),
    ],
)
def test_device_with_a_wrong_value_is_left_out_dra_20(kind: AttributeType, text: str, reason: str) -> None:
    resource = serve(model=(kind, text))
    assert reason_of(resource, make_device("x0")) == f"publish.attributes.model {reason}"


def test_other_devices_are_published_dra_20() -> None:
    resource = serve(model="${model}")
    found = publish(resource, make_device("x0"), make_device("x1", {"model": ("a",)}))
    assert [device.name for device in found.devices] == ["x1"]
    assert [left_out.device_id for left_out in found.left_out] == ["x0"]


def test_optional_attribute_is_left_out_only_if_it_has_no_value() -> None:
    attribute = AttributeSpec(LOCATION, "ports", Template.parse("${ports}"), AttributeType.INT, optional=True)
    resource = replace(serve(), publish=PublishSpec((attribute,)))
    assert attributes_of(resource, make_device("x0")) == {"resource": NAME, "device": "x0"}
    assert reason_of(resource, make_device("x0", {"ports": ("four",)})).endswith("which is not an integer of 64 bits")


def test_reasons_are_counted_from_the_fourth_on() -> None:
    resource = serve(a="${a}", b="${b}", c="${c}", d="${d}", e="${e}")
    reasons = [f"publish.attributes.{name} refers to '{name}', which the device does not have" for name in "abc"]
    assert reason_of(resource, make_device("x0")) == f"{'; '.join(reasons)}; and 2 more reasons"
    assert reason_of(resource, make_device("x0", {"d": ("1",), "e": ("1",)})) == "; ".join(reasons)


def test_verbatim_id_that_is_not_a_dns_label_is_left_out() -> None:
    assert reason_of(serve(), make_device(ADDRESS)) == f"its ID '{ADDRESS}' is not a DNS label; remove 'verbatimId'"


def test_resource_name_that_does_not_fit_into_its_attribute_is_left_out() -> None:
    name = f"a.example/{60 * 'x'}"
    assert reason_of(replace(serve(), name=name), make_device("x0")) == (
        "its resource name has 70 bytes, and the attribute 'resource' has at most 64"
    )
    assert attributes_of(replace(serve(), name=name[:64]), make_device("x0"))["resource"] == name[:64]


def test_withheld_device_is_left_out_with_its_reason(tree: DeviceTree) -> None:
    offer = offer_devices(build_resource(), *tree.make_healthy("x0", "x1"))
    published = publish_resource(offer, withheld={"x0": "pod a uses it by the device plugin API"})
    assert [device.name for device in published.devices] == ["x1"]
    assert published.left_out == (LeftOut("x0", "pod a uses it by the device plugin API"),)


def test_unhealthy_device_is_left_out_if_the_api_server_drops_taints(tree: DeviceTree) -> None:
    x0, x1 = tree.make_device("x0"), tree.make_device("x1")
    offer = offer_devices(build_resource(), *mark_healthy(x0), mark_unhealthy(x1, "/dev/x1 is gone"))
    assert publish_resource(offer, keeps_taints=False).left_out == (LeftOut("x1", "/dev/x1 is gone"),)
    assert publish_resource(offer).left_out == ()


def fail(device: Device, probe: str, gone_since: float | None = None) -> DeviceHealth:
    return DeviceHealth(device, Verdict(healthy=False, reason="broken", since=0, probe=probe), gone_since)


@pytest.mark.parametrize(
    ("probe", "gone_since", "value"),
    [
        ("link", None, "link"),
        ("presence", 1.0, "gone"),
        ("PCIe link (width)", None, "PCIe-link-width"),
        ("-_.", None, "unhealthy"),
        (70 * "a", None, 63 * "a"),
        ("_X ray X_", None, "X-ray-X"),
    ],
)
def test_unhealthy_device_has_a_taint_with_the_failed_probe(probe: str, gone_since: float | None, value: str) -> None:
    (published,) = publish(serve(), fail(make_device("x0"), probe, gone_since)).devices
    assert published.taints == (Taint("genplug.io/unhealthy", value, "NoSchedule"),)


def test_faulty_device_is_left_out_and_not_tainted() -> None:
    device = make_device("x0", faults=("companion /dev/ctl does not exist",))
    entry = DeviceHealth(device, Verdict(healthy=False, reason=device.faults[0], since=0, probe="presence"))
    found = publish(serve(), entry)
    assert found.devices == ()
    assert found.left_out == (LeftOut("x0", "companion /dev/ctl does not exist"),)


def test_unhealthy_grant_without_an_unhealthy_device_has_a_taint_too() -> None:
    offer = build_offer(serve(), mark_healthy(make_device("x0"))).mark_unhealthy({"x0": "a claim holds it"})
    (published,) = publish_resource(offer).devices
    assert published.taints == (Taint("genplug.io/unhealthy", "unhealthy", "NoSchedule"),)


def test_pool_is_tainted_only_without_a_healthy_device_and_ignores_faulty_devices() -> None:
    resource = serve(build_resource(tokens=1), name="${name}")
    x0, x1 = (make_device(key, {"name": (key,)}) for key in ("x0", "x1"))
    faulty = replace(x1, faults=("no node",))
    (published,) = publish(resource, x0, fail(x1, "link")).devices
    assert published.taints == ()
    (published,) = publish(resource, fail(x0, "link"), fail(x1, "presence", 1.0)).devices
    assert published.taints[0].value == "link"
    (published,) = publish(resource, fail(x0, "presence", 1.0), fail(faulty, "presence")).devices
    assert (published.taints[0].value, published.attributes["name"]) == ("gone", "x0")


def test_devices_are_in_the_order_of_their_groups_unless_the_policy_is_none() -> None:
    devices = [make_device(f"x{number}", {"card": (f"card{10 - number}",)}, numa=(number % 2,)) for number in range(4)]
    by_card = Template.parse("${card}")
    orders = [
        [device.name for device in publish(replace(serve(), preference=preference), *devices).devices]
        for preference in (
            PreferenceSpec(),
            PreferenceSpec(Preference.PACKED, by_card, is_explicit=True),
            PreferenceSpec(Preference.NONE, is_explicit=True),
        )
    ]
    assert orders == [["x0", "x2", "x1", "x3"], ["x3", "x2", "x1", "x0"], ["x0", "x1", "x2", "x3"]]


def test_unchanged_device_is_not_evaluated_again() -> None:
    resource, publisher = serve(model="${model}"), ResourcePublisher()
    healths = mark_healthy(*(make_device(f"x{number}", {"model": (f"m{number}",)}) for number in range(20)))
    offer = build_offer(resource, healths)
    first = publisher.publish(offer)
    changed = build_offer(resource, (fail(healths[0].device, "link"), *healths[1:]), previous=offer)
    lines, found = count_lines(lambda: publisher.publish(changed))
    all_lines, expected = count_lines(lambda: publish_resource(changed))
    assert found == expected
    assert all(new is old for new, old in zip(found.devices[1:], first.devices[1:], strict=True))
    assert lines < all_lines / 3


def test_change_of_the_resource_evaluates_all_devices() -> None:
    publisher, offer = ResourcePublisher(), build_offer(serve(), mark_healthy(make_device("x0", {"model": ("a",)})))
    assert "model" not in publisher.publish(offer).devices[0].attributes
    changed = replace(offer, resource=serve(model="${model}"))
    assert publisher.publish(changed).devices[0].attributes["model"] == "a"


# The alphabets are texts, and each strategy is built once: for a class of characters and for a regular expression,
# Hypothesis first builds a table of all Unicode characters, which takes longer than the draws of all examples.
CHARACTERS = "abz019-_.:/ XYZ\0\n\x1b\u00e9\u0130\u0664\u202e\U0001f600"
TEXTS = st.builds(mul, st.text(CHARACTERS, min_size=1, max_size=4), st.sampled_from([1, 70]))
"""Texts of some characters, and such that are longer than the limits of labels and values."""
VALUES = st.dictionaries(st.sampled_from("abc"), st.lists(TEXTS | st.just(""), min_size=1, max_size=2).map(tuple))
NAMES = st.integers(1, 63).map(lambda length: f"vendor.example/{length * 'x'}")
TEMPLATES = st.sampled_from(
    [Template.parse(text) for text in ("${a}", "${b|default:0}", "1", "${a}.${b}.0", "${c|lower}", "x" * 64)]
)
ATTRIBUTES = st.lists(
    st.builds(
        AttributeSpec,
        st.just(LOCATION),
        st.sampled_from(["_", "A", "model", "serial_2", "ten_chars_"]),
        TEMPLATES,
        st.sampled_from(AttributeType),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda attribute: attribute.name,
)
CAPACITY = st.lists(
    st.builds(CapacitySpec, st.just(LOCATION), st.sampled_from(["memory", "_2"]), TEMPLATES), max_size=1
)
SHARING: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [{}, {"replicas": 3}, {"tokens": 2}, {"slices": Template.parse("2")}]
)
ENTRIES = st.lists(
    st.tuples(TEXTS, VALUES, st.none() | st.tuples(TEXTS, st.sampled_from([None, 1.0]))),
    max_size=4,
    unique_by=lambda entry: device_id(NAME, entry[0], is_node_name=True),
)
"""Devices: the key, the attributes, and for an unhealthy device the probe and the time since which it is gone."""


def build_any_offer(
    name: str,
    attributes: list[AttributeSpec],
    capacity: list[CapacitySpec],
    sharing: dict[str, object],
    entries: list[tuple[str, Values, tuple[str, float | None] | None]],
) -> ResourceOffer:
    publishing = PublishSpec(tuple(attributes), tuple(capacity))
    resource = replace(build_resource(), name=name, serve=Serve.DRA, publish=publishing, **sharing)
    healths: dict[str, DeviceHealth] = {}
    for key, values, failure in entries:
        device = make_device(key, values, id=device_id(name, key, is_node_name=True), resource=name, slices=2)
        healths[device.id] = mark_healthy(device)[0] if failure is None else fail(device, *failure)
    devices = sort_devices(health.device for health in healths.values())
    return build_offer(resource, tuple(healths[device.id] for device in devices))


OFFERS = st.builds(build_any_offer, NAMES, ATTRIBUTES, CAPACITY, SHARING, ENTRIES)


@given(OFFERS)
def test_published_devices_are_valid(offer: ResourceOffer) -> None:
    found = publish_resource(offer)
    names = [device.name for device in found.devices]
    assert len(set(names)) == len(names)
    assert sorted([*names, *(left_out.device_id for left_out in found.left_out)]) == sorted(offer.grants)
    assert all(left_out.reason for left_out in found.left_out)
    for device in found.devices:
        assert LABEL.match(device.name)
        assert len(device.attributes) + len(device.capacity) <= 32
        assert not any(map(published_name_error, (*device.attributes, *device.capacity)))
        for value in device.attributes.values():
            text = value.text if isinstance(value, Version) else value
            assert not isinstance(text, str) or len(text.encode()) <= 64
            assert not isinstance(value, Version) or not value_error(AttributeType.VERSION, value.text)
            assert isinstance(value, str | Version) or -(1 << 63) <= value < 1 << 63
        assert all(canonicalize_quantity(text) == text for text in device.capacity.values())
        assert all(LABEL_VALUE.match(taint.value) for taint in device.taints)


@given(OFFERS)
def test_published_devices_have_the_same_attributes_except_optional_ones(offer: ResourceOffer) -> None:
    optional = {attribute.name for attribute in offer.resource.publish.attributes if attribute.optional}
    required = {attribute.name for attribute in offer.resource.publish.attributes} - optional
    for device in publish_resource(offer).devices:
        assert set(device.attributes) - optional == {"resource", "device", *required}
        assert set(device.capacity) == {spec.name for spec in offer.resource.publish.capacity}


@given(OFFERS)
def test_left_out_taints_leave_out_exactly_the_tainted_devices(offer: ResourceOffer) -> None:
    with_taints, without = publish_resource(offer), publish_resource(offer, keeps_taints=False)
    assert without.devices == tuple(device for device in with_taints.devices if not device.taints)
