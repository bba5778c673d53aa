"""Allocate's answer: everything a container needs, looked at again, in one order; or a reason for a person."""

import os
import stat
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.host import Host
from genplug.spec.globs import Glob
from genplug.spec.model import MountSpec
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.support.allocation import Node, healthy, made_node, mount, offer, resource, unhealthy


def refused(answers: ResourceState, *ids: str) -> str:
    """Return why a request was refused that has nothing to do with an unknown ID."""
    with pytest.raises(AllocationError) as refusal:
        answers.allocate(ids)
    assert refusal.value.code is AllocationErrorCode.FAILED_PRECONDITION
    return str(refusal.value)


def test_a_container_gets_the_node_of_its_device(node: Node) -> None:
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"), node.device("x1"))), node.host)
    assert answers.allocate(["x1"]) == ContainerEdits(nodes=(NodeEdit("/dev/x1", "/dev/x1", "rw"),))


def test_a_symlink_is_given_as_the_node_behind_it_under_its_own_name(node: Node) -> None:
    node.plug("/dev/ttyUSB3")
    node.at("/dev/serial").mkdir()
    node.at("/dev/serial/adapter").symlink_to("/dev/ttyUSB3")
    device = node.device("adapter", node.node("/dev/serial/adapter"))
    [only] = ResourceState(offer(resource(), *healthy(device)), node.host).allocate(["adapter"]).nodes
    assert only == NodeEdit("/dev/ttyUSB3", "/dev/serial/adapter", "rw")


@pytest.mark.root
def test_a_real_node_is_looked_at_again_by_its_numbers(node: Node) -> None:
    path = node.at("/dev/real")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    answers = ResourceState(offer(resource(), *healthy(node.device("real"))), node.host)
    assert answers.allocate(["real"]).nodes == (NodeEdit("/dev/real", "/dev/real", "rw"),)
    path.unlink()
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(1, 3))
    assert "/dev/real is now block 1:3 and was char 1:3 when it was found" in refused(answers, "real")


def test_templates_speak_of_all_devices_of_the_container_in_natural_order(node: Node) -> None:
    spec = resource(
        env={"ALL": "${index}", "FIRST": "${name|first}", "COUNT": "${path|count}", "LIST": "${path|join: }"},
        annotations={"a.example/names": "${name|json}"},
    )
    answers = ResourceState(offer(spec, *healthy(*(node.device(f"x{n}") for n in (1, 2, 10)))), node.host)
    edits = answers.allocate(["x10", "x2"])
    assert edits.env == (("ALL", "2,10"), ("FIRST", "x2"), ("COUNT", "2"), ("LIST", "/dev/x2 /dev/x10"))
    assert edits.annotations == (("a.example/names", '["x2", "x10"]'),)
    assert [one.host_path for one in edits.nodes] == ["/dev/x2", "/dev/x10"]


def test_values_of_several_devices_do_not_repeat(node: Node) -> None:
    answers = ResourceState(
        offer(resource(env={"MAJOR": "${major}"}), *healthy(node.device("x0"), node.device("x1"))), node.host
    )
    assert answers.allocate(["x0", "x1"]).env == (("MAJOR", "240"),)


def test_companions_come_once_and_after_the_nodes(node: Node) -> None:
    ctl = node.node("/dev/ctl", permissions="rwm")
    devices = [node.device(f"x{number}", companions=(ctl,)) for number in (0, 1)]
    edits = ResourceState(offer(resource(), *healthy(*devices)), node.host).allocate(["x1", "x0"])
    assert edits.nodes == (
        NodeEdit("/dev/x0", "/dev/x0", "rw"),
        NodeEdit("/dev/x1", "/dev/x1", "rw"),
        NodeEdit("/dev/ctl", "/dev/ctl", "rwm"),
    )


def test_two_replicas_of_a_device_give_it_once(node: Node) -> None:
    spec = resource(replicas=3, env={"X": "${name}"})
    answers = ResourceState(offer(spec, *healthy(node.device("x0"))), node.host)
    assert answers.allocate(["x0-r2", "x0-r0"]) == answers.allocate(["x0-r1"])


def test_a_token_gives_every_healthy_device_of_the_pool(node: Node) -> None:
    judged = (*healthy(node.device("x0")), unhealthy(node.device("x1"), "broken"), *healthy(node.device("x2")))
    answers = ResourceState(offer(resource(tokens=2, env={"X": "${name}"}), *judged), node.host)
    one, two = (listed.id for listed in answers.listed)
    edits = answers.allocate([one])
    assert [one.host_path for one in edits.nodes] == ["/dev/x0", "/dev/x2"]
    assert edits.env == (("X", "x0,x2"),)
    assert answers.allocate([two, one]) == edits


def test_49_an_unknown_id_is_named_with_its_resource(node: Node) -> None:
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"))), node.host)
    with pytest.raises(AllocationError, match=r"a\.example/x has no device 'x7'") as refusal:
        answers.allocate(["x0", "x7"])
    assert refusal.value.code is AllocationErrorCode.NOT_FOUND


def test_50_an_unhealthy_device_is_refused_with_its_reason(node: Node) -> None:
    answers = ResourceState(
        offer(resource(), unhealthy(node.device("x0"), "companion /dev/ctl does not exist")), node.host
    )
    assert refused(answers, "x0") == (
        "a.example/x device x0 cannot be allocated to a container: companion /dev/ctl does not exist"
    )


def test_50_a_node_that_vanished_just_now_is_refused(node: Node) -> None:
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"), node.device("x1"))), node.host)
    node.at("/dev/x0").unlink()
    assert refused(answers, "x1", "x0") == (
        "a.example/x device x0 cannot be allocated to a container: /dev/x0 does not exist"
    )
    assert answers.allocate(["x1"]).nodes


def test_50_a_companion_that_vanished_just_now_is_refused(node: Node) -> None:
    device = node.device("x0", companions=(node.node("/dev/ctl"),))
    answers = ResourceState(offer(resource(), *healthy(device)), node.host)
    node.at("/dev/ctl").unlink()
    assert "/dev/ctl does not exist" in refused(answers, "x0")


def test_50_a_node_that_became_something_else_is_refused(node: Node) -> None:
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"))), node.host)
    node.at("/dev/x0").unlink()
    node.at("/dev/x0").mkdir()
    assert "/dev/x0 is now a directory, not a device node" in refused(answers, "x0")


def test_50_a_node_that_changed_numbers_is_refused(node: Node) -> None:
    node.plug("/dev/x0", 5)
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"))), node.host)
    node.plug("/dev/x0", 6)
    assert "/dev/x0 is now char 240:6 and was char 240:5 when it was found" in refused(answers, "x0")


def test_59_a_node_replaced_by_a_link_to_another_is_refused(node: Node) -> None:
    answers = ResourceState(offer(resource(), *healthy(node.device("x0"))), node.host)
    node.at("/dev/x0").unlink()
    node.at("/dev/sda").write_text("block 8:0")
    node.at("/dev/x0").symlink_to("sda")
    assert "/dev/x0 is now block 8:0 and was char" in refused(answers, "x0")


def test_51_the_same_question_has_the_same_answer(node: Node) -> None:
    answers = ResourceState(offer(resource(env={"X": "${path}"}), *healthy(node.device("x0"))), node.host)
    assert answers.allocate(["x0"]) == answers.allocate(["x0"])


def test_52_a_repeated_id_counts_once(node: Node) -> None:
    answers = ResourceState(offer(resource(env={"X": "${path}"}), *healthy(node.device("x0"))), node.host)
    assert answers.allocate(["x0", "x0"]) == answers.allocate(["x0"])


def test_53_no_ids_are_no_edits(node: Node) -> None:
    spec = resource(env={"X": "${path}"}, mounts=(mount("/missing", "/m"),))
    assert ResourceState(offer(spec, *healthy(node.device("x0"))), node.host).allocate([]) == ContainerEdits()


@given(
    ids=st.permutations([f"x{number}" for number in range(12)]), count=st.integers(1, 12), with_repeats=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_55_the_order_of_ids_does_not_matter(*, ids: list[str], count: int, with_repeats: bool) -> None:
    with made_node() as node:
        ctl = node.node("/dev/ctl")
        node.at("/opt").mkdir()
        devices = [node.device(f"x{number}", companions=(ctl,)) for number in range(12)]
        spec = resource(env={"X": "${name}", "I": "${index}"}, mounts=(mount("/opt", "/opt/${index}"),))
        answers = ResourceState(offer(spec, *healthy(*devices)), node.host)
        asked = ids[:count]
        edits = answers.allocate(asked + asked[:3] if with_repeats else asked)
        assert edits == answers.allocate(sorted(asked))
        for paths in ([one.container_path for one in edits.nodes], [one.container_path for one in edits.mounts]):
            assert len(paths) == len(set(paths))
        assert dict(edits.env)["I"].split(",") == sorted((name[1:] for name in asked), key=int)


def test_56_two_devices_that_want_one_place_in_the_container_are_refused(node: Node) -> None:
    devices = [node.device(f"x{number}", node.node(f"/dev/x{number}", "/dev/x")) for number in (0, 1)]
    answers = ResourceState(offer(resource(), *healthy(*devices)), node.host)
    assert answers.allocate(["x0"]).nodes == (NodeEdit("/dev/x0", "/dev/x", "rw"),)
    assert refused(answers, "x1", "x0") == (
        "a.example/x devices x0 and x1 cannot be allocated to a container: /dev/x0 and /dev/x1 both map to /dev/x "
        "in the container; set different container paths with 'as'"
    )


def test_a_node_shared_by_two_devices_has_the_permissions_of_both(node: Node) -> None:
    one = node.device("x0", node.node("/dev/shared", permissions="r"))
    other = node.device("x1", node.node("/dev/shared", permissions="wm"))
    answers = ResourceState(offer(resource(), *healthy(one, other)), node.host)
    assert answers.allocate(["x0", "x1"]).nodes == (NodeEdit("/dev/shared", "/dev/shared", "rwm"),)


def test_mounts_are_made_for_each_device_and_come_once(node: Node) -> None:
    for path in ("/usr/local/x", "/var/x/0", "/var/x/1"):
        node.at(path).mkdir(parents=True)
    spec = resource(
        mounts=(
            mount("/usr/local/x", "/usr/local/x/"),
            mount("/var/x/${index}", "/state/${name}", read_only=False),
            mount("/var/none/${index}", "/none/${name}", optional=True),
        )
    )
    answers = ResourceState(offer(spec, *healthy(node.device("x0"), node.device("x1"))), node.host)
    assert answers.allocate(["x1", "x0"]).mounts == (
        MountEdit("/usr/local/x", "/usr/local/x", read_only=True),
        MountEdit("/var/x/0", "/state/x0", read_only=False),
        MountEdit("/var/x/1", "/state/x1", read_only=False),
    )


def test_a_device_of_several_values_has_a_mount_for_each(node: Node) -> None:
    for name in ("a0", "b0"):
        node.at(f"/state/{name}").mkdir(parents=True)
    device = node.device("pair", node.node("/dev/a0"), node.node("/dev/b0"))
    spec = resource(mounts=(mount("/state/${name}", "/state/${name}"),))
    edits = ResourceState(offer(spec, *healthy(device)), node.host).allocate(["pair"])
    assert [one.host_path for one in edits.mounts] == ["/state/a0", "/state/b0"]


def test_58_a_missing_mount_source_is_refused(node: Node) -> None:
    spec = resource(mounts=(mount("/var/${name}", "/var/x"),))
    answers = ResourceState(offer(spec, *healthy(node.device("x0"))), node.host)
    assert refused(answers, "x0") == (
        "a.example/x device x0 cannot be allocated to a container: the mount source /var/x0 does not exist"
    )
    node.at("/var").mkdir()
    node.at("/var/x0").symlink_to("/opt/x")
    assert "the mount source /var/x0 is a symlink to /opt/x, which does not exist" in refused(answers, "x0")
    node.at("/opt/x").mkdir(parents=True)
    assert answers.allocate(["x0"]).mounts == (MountEdit("/opt/x", "/var/x", read_only=True),)


def test_two_mounts_of_one_place_are_refused(node: Node) -> None:
    for name in ("x0", "x1"):
        node.at(f"/var/{name}").mkdir(parents=True)
    spec = resource(mounts=(mount("/var/${name}", "/var/x"),))
    answers = ResourceState(offer(spec, *healthy(node.device("x0"), node.device("x1"))), node.host)
    assert "/var/x0 and /var/x1 are both mounted at /var/x" in refused(answers, "x0", "x1")


def test_a_mount_path_that_is_not_absolute_is_refused(node: Node) -> None:
    spec = resource(mounts=(mount("/dev", "${name}"),))
    answers = ResourceState(offer(spec, *healthy(node.device("x0"))), node.host)
    assert "a mount's path 'x0' is not absolute" in refused(answers, "x0")


def test_a_template_without_a_value_is_refused_and_not_left_empty(node: Node) -> None:
    sound, bare = node.device("x0"), node.device("x")
    answers = ResourceState(offer(resource(env={"I": "${index}"}), *healthy(sound, bare)), node.host)
    assert "'${index}' refers to 'index', which no device of the container has" in refused(answers, "x")
    mounts = resource(mounts=(mount("/dev", "/m/${index}"),))
    assert "a mount refers to 'index', which the device does not have" in refused(
        ResourceState(offer(mounts, *healthy(bare)), node.host), "x"
    )


def test_60_an_answer_holds_one_offer_whatever_comes_after(node: Node) -> None:
    device = node.device("x0")
    before = ResourceState(offer(resource(env={"V": "old"}), *healthy(device)), node.host)
    after = ResourceState(offer(resource(env={"V": "new"}), *healthy(device)), node.host)
    assert before.allocate(["x0"]).env == (("V", "old"),)
    assert after.allocate(["x0"]).env == (("V", "new"),)
    assert evolve(before) == before


def test_what_is_told_is_the_hosts_own_path(node: Node) -> None:
    node.at("/opt").mkdir()
    spec = resource(env={"P": "${path}"}, mounts=(mount("/opt", "/opt"),))
    edits = ResourceState(offer(spec, *healthy(node.device("x0"))), node.host).allocate(["x0"])
    assert str(node.root) not in repr(edits)


@pytest.mark.root
def test_the_machines_own_null_device_is_given(node: Node) -> None:
    host = Host(Path("/"))
    look = host.stat("/dev/null")
    assert look is not None
    device = node.device("null", evolve(node.node("/dev/any"), path="/dev/null", container_path="/dev/n", info=look))
    edits = allocate_edits(offer(resource(), *healthy(device)), ["null"], host)
    assert edits.nodes == (NodeEdit("/dev/null", "/dev/n", "rw"),)


def test_a_mount_is_asked_about_under_its_own_path_and_under_the_one_it_leads_to(node: Node) -> None:
    for path in ("/etc", "/opt/real"):
        node.at(path).mkdir(parents=True)
    node.at("/opt/out0").symlink_to("/etc")
    node.at("/opt/in0").symlink_to("real")
    node.at("/opt/up0").symlink_to("real/../../etc")
    device = node.device("x0")
    policy = Policy("policy.yaml", mounts=(Glob.parse("/opt"),))

    def answers(*mounts: MountSpec, policy: Policy = policy) -> ResourceState:
        return ResourceState(offer(evolve(resource(mounts=mounts), policy=policy), *healthy(device)), node.host)

    allowed = answers(mount("/opt/in${index}", "/m"))
    assert allowed.allocate(["x0"]).mounts == (MountEdit("/opt/real", "/m", read_only=True),)
    by_allow = "is refused by 'mounts.allow' of policy.yaml, which allows /opt"
    for path in ("/opt/out0", "/opt/out${index}", "/opt/up0"):
        said = refused(answers(mount(path, "/m")), "x0")
        assert said.endswith(f"{path.replace('${index}', '0')}, which leads to /etc, {by_allow}")
    # Nor is anybody told whether it is there.
    for path in ("/etc", "/e${name}", "/opt/${name}/../../etc"):
        assert by_allow in refused(answers(mount(path, "/m", optional=True)), "x0")
    writable = mount("/opt/in0", "/m", read_only=False)
    assert "is refused by 'mounts.writable' of policy.yaml" in refused(answers(writable), "x0")
    assert "of the default policy, which allows nothing" in refused(answers(writable, policy=DEFAULT_POLICY), "x0")
