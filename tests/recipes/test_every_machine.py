"""Every recipe on every machine: its probes can check healthy hardware, and ``genplug init`` selects what fits.

The machines are the trees of all recipes and the captured ``/sys`` of real machines.
"""

import pytest

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.run_once import run_probes_once
from genplug.recipes.catalog import shipped_recipes
from genplug.recipes.detect import merge_recipes, select_recipes
from tests.recipes.machines import CAPTURES, MACHINES, open_machine
from tests.support.recipes import RECIPES, load_recipe

SELECTED = {
    # A tree has the hardware of its recipe, and devices that the recipe leaves out. Some of these belong to others.
    **{name: {name} for name in RECIPES},
    "alveo": {"alveo", "amd-gpu"},
    "amd-gpu": {"amd-gpu", "intel-gpu"},
    "amd-gpu-partitions": {"amd-gpu-partitions", "intel-gpu"},
    "efa": {"efa", "sriov-netdev"},
    "gaudi": {"gaudi", "intel-npu"},
    "infiniband": {"infiniband", "sriov-netdev"},
    "intel-gpu": {"amd-gpu", "intel-gpu"},
    "intel-npu": {"gaudi", "intel-gpu", "intel-npu"},
    "mipi-camera": {"mipi-camera", "video-capture"},
    "nvidia-gpu": {"nvidia-gpu", "nvidia-mig"},
    "nvidia-gpu-shared": {"nvidia-gpu", "nvidia-mig"},
    "nvidia-mig": {"nvidia-gpu", "nvidia-mig"},
    "omni-path": {"omni-path", "sriov-netdev"},
    "ptp-clock": {"ptp-clock", "sriov-netdev"},
    "rdma-shared": {"infiniband", "sriov-netdev"},
    "sriov-netdev": {"rdma-shared", "sriov-netdev", "sriov-vfio"},
    "sriov-vfio": {"nvidia-passthrough", "sriov-netdev", "sriov-vfio"},
    "v4l2-codec": {"mipi-camera", "v4l2-codec"},
    "wwan-modem": {"usb-serial", "wwan-modem"},
    "video-capture": {"v4l2-codec", "video-capture"},
    # The captures have neither the driver of the NVIDIA card nor the numbers of the device nodes of adapters.
    "infiniband-amdgpu": set(),
    "pci-nvidia-p100": set(),
    "pmem-dax-xeon": {"devdax"},
}
ALTERNATIVES = {
    "amd-gpu-partitions": {"amd-gpu"},
    "infiniband": {"rdma-shared"},
    "nvidia-gpu": {"nvidia-gpu-shared"},
    "nvidia-gpu-shared": {"nvidia-gpu-shared"},
    "nvidia-mig": {"nvidia-gpu-shared"},
    "rdma-shared": {"rdma-shared"},
}
"""The recipes that match a machine as well, but have devices of a selected recipe."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("machine", MACHINES)
def test_no_probe_of_any_recipe_has_an_error_on_healthy_hardware(machine: str) -> None:
    errors, failures = [], {}
    with open_machine(machine) as root:
        host = Host.at(root, node_name="node-a")
        for recipe in RECIPES:
            inventory = discover(load_recipe(recipe), host)
            results, probe_errors, _ = run_probes_once(inventory, host)
            errors += [(recipe, error.probe, error.error) for error in probe_errors]
            if results.failures and machine == recipe:
                failures[recipe] = results.failures
    assert errors == []
    assert failures == {}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("machine", MACHINES)
def test_init_selects_the_recipes_of_a_machine_and_no_others(machine: str) -> None:
    with open_machine(machine) as root:
        host = Host.at(root)
        selection = select_recipes(shipped_recipes().values(), host)
        assert {selected.recipe.kind for selected in selection.selected} == SELECTED[machine]
        assert set(selection.left_out) == ALTERNATIVES.get(machine, set())
        assert selection.failed == {}
        if selection.selected:
            config = load_text(merge_recipes(selection, len(RECIPES)), "c.yaml", None)
            inventory = discover(config, host)
            # A device is in one resource only, and each selected recipe has devices.
            assert inventory.conflicts == ()
            found = {
                resource.configured_name for name, resource in inventory.resources.items() if inventory.devices[name]
            }
            for selected in selection.selected:
                own = load_text(selected.recipe.text, "r.yaml", None).resources
                assert found & own.keys()


def test_each_machine_has_an_expectation() -> None:
    assert set(SELECTED) == set(RECIPES) | set(CAPTURES)
