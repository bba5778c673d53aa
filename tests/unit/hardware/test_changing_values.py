"""Names and IDs that are made of values: what changes continually does not create them without end."""

from msgspec.structs import replace

from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.inventory import Inventory
from genplug.hardware.ledger import NO_USAGE, Ledger
from genplug.hardware.resource_naming import NameHistory
from genplug.spec.limits import MAX_IDS_PER_HOUR, MAX_NAMES_PER_TEMPLATE, MAX_NEW_NAMES_PER_HOUR
from genplug.spec.model import Resource
from genplug.spec.template import Template
from tests.support.hardware import NodeTree, build_config, build_resource, build_source, find_reason

NAME = "a.example/x-${attr.value}"
HOUR = 3600.0


def scan(  # noqa: PLR0913, PLR0917 - the parts of a scan
    tree: NodeTree, resource: Resource, value: object, ledger: Ledger, now: float, previous: Inventory | None
) -> tuple[Inventory, Ledger]:
    """Return the inventory and ledger after the device's attribute has changed."""
    tree.write("/sys/devices/x0/value", f"{value}\n")
    scans = {resource.name: scan_resource(resource, tree.host.cached())}
    return build_inventory(build_config(resource), scans, previous, ledger, now)


def plug(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.write("/sys/devices/x0/value", "0")
    tree.link("/sys/dev/char/240:0", "../../devices/x0")


def test_name_of_a_changing_value_creates_few_resources_within_an_hour(tree: NodeTree) -> None:
    plug(tree)
    resource = replace(build_resource(NAME, build_source("/dev/x0")), name_template=Template.parse(NAME))
    inventory, ledger = None, Ledger(NO_USAGE)
    names: set[str] = set()
    for value in range(100):
        inventory, ledger = scan(tree, resource, value, ledger, float(value), inventory)
        names |= inventory.devices.keys()
    assert len(names) == 1 + MAX_NEW_NAMES_PER_HOUR
    assert inventory is not None
    reason = find_reason(inventory, "/dev/x0", "a.example/x-99")
    assert reason.startswith(
        f"its resource name would be 'a.example/x-99', and {NAME} has created 20 names within an hour"
    )
    # A name that was used within the hour is not new.
    inventory, ledger = scan(tree, resource, 3, ledger, 200.0, inventory)
    assert list(inventory.devices) == ["a.example/x-3"]
    inventory, _ = scan(tree, resource, 100, ledger, 100 + HOUR, inventory)
    assert list(inventory.devices) == ["a.example/x-100"]


def test_names_of_the_first_scan_are_limited_by_their_number_only() -> None:
    names = [f"x{number}" for number in range(MAX_NAMES_PER_TEMPLATE + 10)]
    history = NameHistory.start(names, 0.0)
    assert list(history.last_used) == names[:MAX_NAMES_PER_TEMPLATE]
    assert history.after_scan(names, 1.0).last_used == dict.fromkeys(names[:MAX_NAMES_PER_TEMPLATE], 1.0)
    later = history.after_scan(reversed(names), 2.0)
    assert sum(used == 2.0 for used in later.last_used.values()) == MAX_NAMES_PER_TEMPLATE


def test_id_of_a_changing_value_is_left_out_after_many_changes(tree: NodeTree) -> None:
    plug(tree)
    resource = build_resource("a.example/x", build_source("/dev/x0", id="${attr.value}"))
    inventory, ledger = None, Ledger(NO_USAGE)
    ids: set[str] = set()
    for value in range(2 * MAX_IDS_PER_HOUR):
        inventory, ledger = scan(tree, resource, value, ledger, float(value), inventory)
        ids |= {device.id for device in inventory.devices["a.example/x"]}
    assert len(ids) == 1 + MAX_IDS_PER_HOUR
    assert inventory is not None
    assert find_reason(inventory, "/dev/x0", "a.example/x") == (
        f"its hardware has had {MAX_IDS_PER_HOUR} IDs within an hour; write an 'id' template of a value that does not "
        "change"
    )
    assert not inventory.withheld
    inventory, _ = scan(tree, resource, "other", ledger, 300 + HOUR, inventory)
    assert len(inventory.devices["a.example/x"]) == 1
