"""The number of resource names that templates create is limited, on a node and for each template."""

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.spec.limits import MAX_NAMES_PER_TEMPLATE, MAX_RESOURCES
from genplug.spec.model import Config
from tests.support.hardware import NodeTree

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
