"""The state of a resource: what may block, CDI files of genplug and of other programs, and preferred devices."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from genplug.allocation.cdi_spec import file_name, spec_text
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, failed_precondition
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.resource_state import ResourceState
from genplug.allocation.results import ListedDevice, ProgramRun
from genplug.hardware.inventory import DeviceNode
from genplug.spec.globs import Glob
from genplug.spec.model import AllocateSpec, Preference, PreferenceSpec, PreStartSpec, Resource
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_mount_spec, build_resource, build_state, mark_healthy
from tests.support.configs import format_cdi_spec
from tests.support.hardware import LOCATION, NAME

BY_CDI = replace(build_resource(), allocate=AllocateSpec(injects_by_cdi=True))
FOREIGN = replace(build_resource(), allocate=AllocateSpec(cdi_devices=(Template.parse("b.example/y=${name}"),)))


def put_in_dev(node: DeviceNode, *, is_in_dev: bool = True) -> DeviceNode:
    return replace(node, info=replace(node.info, is_in_dev=is_in_dev))


def find_error(state: ResourceState, *ids: str) -> str:
    with pytest.raises(AllocationError) as caught:
        state.allocate(ids)
    return str(caught.value)


def test_call_may_block_if_a_requested_node_is_outside_of_dev(tree: DeviceTree) -> None:
    inside, outside = put_in_dev(tree.make_node("/dev/a")), put_in_dev(tree.make_node("/dev/b"), is_in_dev=False)
    devices = (
        tree.make_device("x0", inside),
        tree.make_device("x1", inside, outside),
        tree.make_device("x2", inside, companions=(outside,)),
    )
    state = build_state(tree, build_resource(), *mark_healthy(*devices))
    assert not state.may_block(["x0", "unknown"])
    assert state.may_block(["x0", "x1"])
    assert state.may_block(["x2"])
    assert not state.may_block([])


@pytest.mark.parametrize(
    "spec",
    [build_resource(mounts=(build_mount_spec("/opt", "/opt"),)), BY_CDI, FOREIGN],
    ids=["mount", "cdi", "foreign"],
)
def test_call_may_block_if_it_reads_other_files(tree: DeviceTree, spec: Resource) -> None:
    device = tree.make_device("x0", put_in_dev(tree.make_node("/dev/a")))
    assert build_state(tree, spec, *mark_healthy(device)).may_block(["x0"])


def write_cdi_file(tree: DeviceTree, state: ResourceState, *ids: str) -> None:
    edits = dict.fromkeys(ids, ContainerEdits())
    tree.write(f"/var/run/cdi/{file_name(NAME)}", spec_text(NAME, edits) or "")
    assert state.offer.resource.name == NAME


def test_cdi_file_is_restored_before_an_allocation_refers_to_it(tree: DeviceTree) -> None:
    restored: list[tuple[ResourceOffer, Sequence[str]]] = []
    state = replace(
        build_state(tree, BY_CDI, *tree.make_healthy("x0", "x1")),
        restore=lambda offer, ids: restored.append((offer, ids)),
    )
    write_cdi_file(tree, state, "x0", "x1")
    kind = f"{NAME.partition('/')[0]}/"
    names = state.allocate(["x1", "x0", "x1"]).cdi_devices
    assert [name.rpartition("=")[2] for name in names] == ["x0", "x1"]
    assert all(name.startswith(kind) for name in names)
    assert restored == [(state.offer, ["x1", "x0", "x1"])]
    assert state.allocate([]) == ContainerEdits()
    assert len(restored) == 1


def test_allocation_fails_if_the_cdi_file_cannot_be_restored(tree: DeviceTree) -> None:
    def fail(offer: ResourceOffer, ids: Sequence[str]) -> None:
        raise failed_precondition(f"cannot write the file of {offer.resource.name} for {ids}")

    state = replace(build_state(tree, BY_CDI, *tree.make_healthy("x0")), restore=fail)
    assert find_error(state, "x0") == f"cannot write the file of {NAME} for ('x0',)"


def test_device_nodes_are_given_without_a_cdi_file(tree: DeviceTree) -> None:
    restored: list[Sequence[str]] = []
    state = replace(
        build_state(tree, build_resource(), *tree.make_healthy("x0")), restore=lambda _, ids: restored.append(ids)
    )
    assert [node.host_path for node in state.allocate(["x0"]).nodes] == ["/dev/x0"]
    assert restored == []


def test_cdi_device_of_another_program_has_to_be_defined(tree: DeviceTree) -> None:
    state = build_state(tree, FOREIGN, *tree.make_healthy("x0", "x1"))
    tree.write("/var/run/cdi/y.json", format_cdi_spec("b.example/y", "x0"))
    assert state.allocate(["x0"]).cdi_devices == ("b.example/y=x0",)
    assert find_error(state, "x0", "x1").startswith(
        f"{NAME} cannot be allocated to a container: no CDI file in /etc/cdi and /var/run/cdi defines b.example/y=x1"
    )


def test_cdi_device_of_genplug_must_not_be_defined_in_another_file(tree: DeviceTree) -> None:
    state = build_state(tree, BY_CDI, *tree.make_healthy("x0", "x1"))
    write_cdi_file(tree, state, "x0", "x1")
    [name] = state.allocate(["x1"]).cdi_devices
    kind, _, device = name.partition("=")
    tree.write("/var/run/cdi/other.json", format_cdi_spec(kind, device))
    assert state.allocate(["x0"])
    assert find_error(state, "x0", "x1") == (
        f"{NAME} cannot be allocated to a container: /var/run/cdi/other.json defines the CDI device {name} of genplug; "
        "remove it from the file"
    )


def test_state_has_the_list_the_options_and_the_programs_of_its_offer(tree: DeviceTree) -> None:
    spec = replace(
        build_resource(),
        pre_start=PreStartSpec(LOCATION, (Template.parse("/bin/reset"), Template.parse("${name}")), 5),
        policy=replace(build_resource().policy, programs=(Glob.parse("/bin/reset"),)),
    )
    state = build_state(tree, spec, *tree.make_healthy("x0"))
    assert state.listed == (ListedDevice("x0", healthy=True),)
    assert state.options.pre_start_required
    [run] = state.pre_start_programs(["x0"])
    assert run == ProgramRun(NAME, "x0", ("/bin/reset", "x0"), 5)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (build_resource(replicas=2), ("x0-r0", "x0-r1")),
        (replace(build_resource(replicas=2), distinct=True), ("x0-r0", "x1-r0")),
        (
            replace(build_resource(replicas=2), preference=PreferenceSpec(Preference.SPREAD, is_explicit=True)),
            ("x0-r0", "x1-r0"),
        ),
        (
            replace(
                build_resource(),
                preference=PreferenceSpec(Preference.CONTIGUOUS, by=Template.parse("${minor}"), is_explicit=True),
            ),
            ("x1", "x2"),
        ),
    ],
    ids=["none", "distinct", "spread", "contiguous"],
)
def test_preferred_devices_follow_the_settings_of_the_resource(
    tree: DeviceTree, spec: Resource, expected: tuple[str, ...]
) -> None:
    for path, numbers in (("/dev/x0", "240:0"), ("/dev/x1", "240:7"), ("/dev/x2", "240:8")):
        tree.plug(path, numbers)
    state = build_state(tree, spec, *tree.make_healthy("x0", "x1", "x2"))
    available = list(state.offer.grants)[::-1]
    assert state.choose_preferred(available, [], 2) == expected
    assert state.choose_preferred(available, [available[0]], 1) == (available[0],)


def test_preferred_devices_are_in_the_order_of_the_offer(tree: DeviceTree) -> None:
    # The offer sorts devices by key; the order of their IDs may differ.
    state = build_state(tree, build_resource(), *tree.make_healthy("x2", "x1", "x0"))
    assert state.choose_preferred(["x0", "x1", "x2"], [], 2) == ("x2", "x1")
