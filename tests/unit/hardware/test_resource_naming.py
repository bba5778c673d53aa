"""The names that templates create: how they are rendered, which devices have them, and how many there are."""

import pytest
from msgspec.structs import replace

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device
from genplug.hardware.resource_naming import (
    DevicesByName,
    NameHistory,
    group_by_resource_name,
    instantiate_resource,
    resource_name,
)
from genplug.spec.limits import MAX_NAMES_PER_TEMPLATE, MAX_NEW_NAMES_PER_HOUR, MAX_RESOURCES
from genplug.spec.model import Config, Resource
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.hardware import LOCATION, NodeTree, build_resource

TEMPLATE = "a.io/${attr.model}"
PLAIN, TEMPLATED = (
    build_resource("a.io/plain"),
    replace(build_resource(TEMPLATE), name_template=Template.parse(TEMPLATE)),
)
HOUR = 3600.0
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"


def load(text: str) -> Config:
    return load_text(HEAD + text, "c.yaml")


def test_names_of_all_templates_are_limited_in_the_order_of_the_configuration(tree: NodeTree) -> None:
    for letter in "abcd":
        for number in range(90):
            tree.plug(f"/dev/{letter}{number}")
    tree.plug("/dev/plain")
    inventory = discover(
        load(
            "".join(
                f"  'a.io/{letter}-${{name}}': {{devices: [{{glob: '/dev/{letter}[0-9]*'}}]}}\n" for letter in "abcd"
            )
            + "  a.io/plain: {devices: [{glob: /dev/plain}], aliases: [a.io/alias]}\n"
        ),
        Host.at(tree.root),
    )
    assert len(inventory.resources) == MAX_RESOURCES - 1
    assert inventory.devices["a.io/plain"]
    kept = {letter: sum(name.startswith(f"a.io/{letter}-") for name in inventory.resources) for letter in "abcd"}
    assert kept == {"a": 90, "b": 90, "c": 90, "d": 28}
    lost = [outcome.reason for outcome in inventory.outcomes if outcome.is_misnamed]
    assert len(lost) == 62
    assert f"the node already has {MAX_RESOURCES} resource names, the maximum" in lost[0]


def test_names_of_a_template_are_limited(tree: NodeTree) -> None:
    for number in range(MAX_NAMES_PER_TEMPLATE + 1):
        tree.plug(f"/dev/a{number}")
    inventory = discover(load("  'a.io/a-${name}': {devices: [{glob: '/dev/a*'}]}\n"), Host.at(tree.root))
    assert len(inventory.resources) == MAX_NAMES_PER_TEMPLATE


LONG = "x" * 64


@pytest.mark.parametrize(
    ("resource", "value", "name", "error"),
    [
        (PLAIN, "x", "a.io/plain", ""),
        (TEMPLATED, "A100 (40 GB)", "a.io/A100-40-GB", ""),
        (TEMPLATED, LONG, f"a.io/{LONG}", "the part after '/' has 64 characters, at most 63 are allowed"),
        (
            replace(TEMPLATED, policy=Policy(resources=("b.io/*",))),
            "x",
            "a.io/x",
            "refused by 'resources' of the default policy, which allows b.io/*",
        ),
    ],
    ids=["plain", "sanitized", "invalid", "refused"],
)
def test_name_of_a_device_is_rendered_from_its_attributes(
    resource: Resource, value: str, name: str, error: str
) -> None:
    reason = f"its resource name would be '{name}': {error}" if error else ""
    assert resource_name(resource, {"attr.model": (value,)}) == (name, reason)


def test_device_without_the_attribute_of_the_template_has_no_name() -> None:
    reason = f"the resource name {TEMPLATE} refers to 'attr.model', which the device does not have"
    assert resource_name(TEMPLATED, {}) == ("", reason)


def test_name_is_forgotten_an_hour_after_its_last_use() -> None:
    history = NameHistory.start(["a", "b"], 0.0).after_scan(["a"], 10.0)
    assert history == NameHistory({"a": 10.0, "b": 0.0})
    assert history.after_scan([], HOUR - 1) == history
    assert history.after_scan(["a"], HOUR) == NameHistory({"a": HOUR})


def test_new_names_are_limited_for_an_hour_from_their_creation() -> None:
    names = [f"x{number}" for number in range(MAX_NEW_NAMES_PER_HOUR + 5)]
    history = NameHistory({}).after_scan([*names, *names], 1.0)
    created = (1.0,) * MAX_NEW_NAMES_PER_HOUR
    assert history == NameHistory(dict.fromkeys(names[:MAX_NEW_NAMES_PER_HOUR], 1.0), created)
    assert history.after_scan(["y"], HOUR) == history
    assert history.after_scan(["y"], HOUR + 1) == NameHistory({"y": HOUR + 1}, (HOUR + 1,))


def test_names_that_exceed_the_maximum_are_not_created() -> None:
    names = [f"x{number}" for number in range(MAX_NAMES_PER_TEMPLATE - 1)]
    history = NameHistory.start(names, 0.0).after_scan([*names, "y", "z"], 1.0)
    assert history == NameHistory(dict.fromkeys([*names, "y"], 1.0), (1.0,))


def build_device(number: int, name: str) -> Device:
    return Device(f"x{number}", f"x{number}", name, LOCATION, (), (), (), {})


def test_device_is_left_out_if_its_name_cannot_be_created() -> None:
    first, again, taken, late = (
        build_device(number, f"a.io/{name}") for number, name in enumerate(("a", "a", "plain", "late"))
    )
    devices, others = (taken, late, first, again), {"a.io/plain": PLAIN}
    reasons = {
        taken.id: f"its resource name would be 'a.io/plain', which {PLAIN.location} defines",
        late.id: f"its resource name would be 'a.io/late', and {TEMPLATE} has created 20 names within an hour, the "
        "maximum; use an attribute whose value does not change in the name",
    }
    history = NameHistory({"a.io/a": 1.0, "a.io/late": 0.0})
    grouped = group_by_resource_name(TEMPLATED, devices, others, history, 1.0)
    assert grouped == DevicesByName({"a.io/a": (first, again)}, reasons)
    full = NameHistory({"a.io/a": 1.0} | {f"a.io/{number}": 1.0 for number in range(MAX_NAMES_PER_TEMPLATE - 1)})
    grouped = group_by_resource_name(TEMPLATED, devices, others, full, 1.0)
    assert grouped.lost == reasons | {
        late.id: f"its resource name would be 'a.io/late', and {TEMPLATE} already has 100 names, the maximum; "
        "use an attribute with fewer values in the name"
    }


def test_resource_under_a_name_is_the_previous_object_if_nothing_changed() -> None:
    assert instantiate_resource(PLAIN, "a.io/plain", None) is PLAIN
    instance = instantiate_resource(TEMPLATED, "a.io/a", None)
    assert instance == replace(TEMPLATED, name="a.io/a")
    assert instantiate_resource(TEMPLATED, "a.io/a", instance) is instance
    changed = replace(TEMPLATED, replicas=2)
    assert instantiate_resource(changed, "a.io/a", instance) == replace(changed, name="a.io/a")
