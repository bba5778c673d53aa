"""Claims: which devices they get, what their containers get, and why they are refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.claims import (
    ClaimGrant,
    ClaimPool,
    DeviceHolding,
    DeviceResult,
    Toleration,
    build_claim_edits,
    find_former_holdings,
    list_claim_programs,
    list_holdings,
    parse_results,
    select_grants,
)
from genplug.allocation.errors import ClaimError, ClaimErrorCode, DeviceHeldError
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.published import LeftOut, Taint
from genplug.spec.globs import Glob
from genplug.spec.model import AllocateSpec, PreStartSpec
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_mount_spec, build_resource, mark_healthy, mark_unhealthy
from tests.support.claims import DRIVER, GONE, POOL, allocate_device, build_claim, build_pool, refer
from tests.support.hardware import LOCATION, NAME, open_tree

CLAIM = refer(1)
OTHER = refer(2)


def parse(*results: dict[str, Any]) -> tuple[DeviceResult, ...]:
    return parse_results(build_claim(CLAIM, *results), CLAIM, DRIVER)


def select(
    pool: ClaimPool, *results: dict[str, Any], holdings: tuple[DeviceHolding, ...] = ()
) -> tuple[ClaimGrant, ...]:
    return select_grants(CLAIM, parse(*results), {POOL: pool}, holdings)


def refuse(pool: ClaimPool, *results: dict[str, Any], holdings: tuple[DeviceHolding, ...] = ()) -> ClaimError:
    """Return the error of a claim with these results."""
    with pytest.raises(ClaimError) as refused:
        select(pool, *results, holdings=holdings)
    assert read_reason(refused.value)
    return refused.value


def refuse_document(document: object, code: ClaimErrorCode) -> str:
    """Return the reason why a document is refused with a code."""
    with pytest.raises(ClaimError) as refused:
        parse_results(document, CLAIM, DRIVER)
    assert refused.value.code is code
    return read_reason(refused.value)


def read_reason(error: ClaimError) -> str:
    """Return the reason in an error of the claim."""
    assert error.claim == CLAIM
    start = "ResourceClaim default/claim-1: "
    assert str(error).startswith(start)
    return str(error).removeprefix(start)


@pytest.fixture
def pool(tree: DeviceTree) -> ClaimPool:
    devices = tree.make_healthy("x0", "x1", "x2")
    unhealthy = mark_unhealthy(tree.make_device("x3"), "its node is gone")
    return build_pool(build_offer(build_resource(env={"DEVICES": "${name}"}), (*devices, unhealthy)))


def test_pool_that_has_not_been_scanned_is_not_removed(pool: ClaimPool) -> None:
    results = parse(allocate_device("x0", pool="node-1/other"))
    for is_scanned, cause in (
        (True, "its resource was removed or renamed; create the pod again"),
        (False, "its devices have not been scanned yet; the kubelet tries again"),
    ):
        with pytest.raises(ClaimError, match=f"this node has no pool node-1/other; {cause}"):
            select_grants(CLAIM, results, {POOL: pool}, (), is_scanned=is_scanned)


def test_claims_of_former_ids_and_names_hold_the_grants_of_their_devices(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), tree.make_healthy("x0", "x1", "x2", "x3"))
    holdings = [
        DeviceHolding(OTHER, POOL, "x0-r1"),
        DeviceHolding(OTHER, "node-1/old", "x1"),
        DeviceHolding(OTHER, "node-1/other", "x2"),
        DeviceHolding(OTHER, POOL, "x3"),
    ]
    held = find_former_holdings(offer, POOL, ["node-1/old"], holdings)
    assert held == {"x0": OTHER, "x1": OTHER}
    pool = replace(build_pool(offer), held=held)
    for device in held:
        error = refuse(pool, allocate_device(device))
        assert isinstance(error, DeviceHeldError)
        assert error.holder == OTHER
        assert f"{device} of {NAME} is still prepared for the ResourceClaim {OTHER} (UID {OTHER.uid})" in str(error)
        assert select(pool, allocate_device(device, admin=True))
    assert select(replace(pool, held={"x0": CLAIM}), allocate_device("x0"))


def test_results_of_the_driver_are_read_from_the_claim() -> None:
    tolerations = [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": "5"}]
    assert parse(
        allocate_device("x0", tolerations=tolerations),
        allocate_device("y0", driver="other.example"),
        allocate_device("x1", "first/small", admin=True),
    ) == (
        DeviceResult("gpu", POOL, "x0", tolerations=(Toleration("a", "Exists", "", "NoSchedule"),)),
        DeviceResult("first/small", POOL, "x1", has_admin_access=True),
    )


def test_claim_without_devices_of_the_driver_has_no_results() -> None:
    config = [{"source": "FromClaim", "opaque": {"driver": DRIVER, "parameters": {}}}]
    document = build_claim(CLAIM, allocate_device("y0", driver="other.example"), config=config)
    assert parse_results(document, CLAIM, DRIVER) == ()
    assert parse() == ()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"metadata": {}},
        {"metadata": {"uid": 1}},
        {"metadata": {"uid": "u"}, "status": 1},
        {"metadata": {"uid": "u"}, "\ud800": 1},
    ],
)
def test_document_that_is_not_a_claim_is_refused(document: object) -> None:
    reason = refuse_document(document, ClaimErrorCode.UNREADABLE)
    assert reason.startswith("expected a ResourceClaim of resource.k8s.io/v1 from the API server, found another doc")


def test_result_without_a_device_is_refused() -> None:
    result = allocate_device("x0")
    del result["device"]
    with pytest.raises(ClaimError, match="missing required field `device`"):
        parse(result)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("request", "a/b/c"),
        ("request", ""),
        ("request", "A"),
        ("pool", "a\nb"),
        ("pool", "x" * 254),
        ("device", "../x0"),
        ("device", "x0\n"),
        ("device", "x0-"),
    ],
)
def test_name_that_the_api_server_would_not_accept_is_refused(key: str, name: str) -> None:
    reason = refuse_document(build_claim(CLAIM, allocate_device("x0") | {key: name}), ClaimErrorCode.UNREADABLE)
    assert reason == f"expected a name of a request, a pool or a device, found {name[:300]!a}"
    assert reason.isprintable()


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ("metadata", "uid", "status", "allocation", "devices", "results", "config", "opaque", "driver", "pool")
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(status=_JSON)
def test_any_document_has_results_or_is_refused(status: object) -> None:
    document = {"metadata": {"uid": CLAIM.uid}, "status": status}
    try:
        results = parse_results(document, CLAIM, DRIVER)
    except ClaimError:
        return
    assert isinstance(results, tuple)


def test_claim_with_another_uid_is_refused() -> None:
    assert refuse_document(build_claim(OTHER), ClaimErrorCode.REPLACED) == (
        f"expected the UID {CLAIM.uid}, found {OTHER.uid}: the claim was deleted and created again; delete the pod, "
        "which has the former claim"
    )


def test_claim_without_an_allocation_is_refused() -> None:
    document = build_claim(CLAIM)
    del document["status"]["allocation"]
    assert refuse_document(document, ClaimErrorCode.NOT_ALLOCATED) == (
        "the scheduler has not allocated it, or not any more; create the pod again"
    )


@pytest.mark.parametrize(("source", "place"), [("FromClass", "its DeviceClass"), ("FromClaim", "its spec")])
def test_parameters_for_the_driver_are_refused(source: str, place: str) -> None:
    others = {"source": source, "opaque": {"driver": "other.example", "parameters": {"a": 1}}}
    ours = {"source": source, "requests": ["gpu"], "opaque": {"driver": DRIVER, "parameters": {"a": 1}}}
    parse_results(build_claim(CLAIM, allocate_device("x0"), config=[others]), CLAIM, DRIVER)
    document = build_claim(CLAIM, allocate_device("x0"), config=[others, ours])
    assert refuse_document(document, ClaimErrorCode.PARAMETERS) == (
        f"{place} has parameters for the driver genplug.io, which accepts none; remove them from 'config'"
    )


def test_more_devices_than_the_limit_are_refused() -> None:
    results = [allocate_device(f"x{number}") for number in range(33)]
    assert len(parse(*results[:32])) == 32
    assert refuse_document(build_claim(CLAIM, *results), ClaimErrorCode.NOT_ALLOCATED) == (
        "it has 33 devices of the driver genplug.io, and at most 32 are prepared; request fewer"
    )


def test_healthy_devices_are_selected_in_the_order_of_the_results(pool: ClaimPool) -> None:
    grants = select(pool, allocate_device("x2"), allocate_device("x0", "other"))
    assert [(grant.result.request, grant.grant.id, grant.resource) for grant in grants] == [
        ("gpu", "x2", NAME),
        ("other", "x0", NAME),
    ]


def test_unknown_pool_is_refused(pool: ClaimPool) -> None:
    error = refuse(pool, allocate_device("x0", pool="node-1/gone"))
    assert read_reason(error) == (
        "device x0: this node has no pool node-1/gone; its resource was removed or renamed; create the pod again"
    )
    assert error.code is ClaimErrorCode.UNKNOWN_DEVICE


def test_unknown_device_is_refused(pool: ClaimPool) -> None:
    error = refuse(pool, allocate_device("x9"))
    assert read_reason(error) == (
        "device x9 of a.example/x is not on this node; it was removed from the hardware or the configuration; plug it "
        "in, or create the pod again"
    )
    assert error.code is ClaimErrorCode.UNKNOWN_DEVICE


def test_device_that_is_not_published_any_more_is_refused_with_the_reason(pool: ClaimPool) -> None:
    [_, *others] = pool.published.devices
    left_out = (LeftOut("x0", "the attribute model has no value"),)
    changed = replace(pool, published=replace(pool.published, devices=tuple(others), left_out=left_out))
    error = refuse(changed, allocate_device("x0"))
    assert error.code is ClaimErrorCode.UNKNOWN_DEVICE
    assert read_reason(error) == (
        "device x0 of a.example/x is not published any more: the attribute model has no value; create the pod again"
    )


def test_published_name_stands_for_another_id(pool: ClaimPool) -> None:
    [first, *others] = pool.published.devices
    renamed = replace(pool, published=replace(pool.published, devices=(replace(first, name="a-b"), *others)))
    assert [grant.grant.id for grant in select(renamed, allocate_device("a-b"))] == ["x0"]
    assert read_reason(refuse(renamed, allocate_device("x0"))) == (
        "device x0 of a.example/x is not published any more: it has another name now; create the pod again"
    )


def test_device_of_another_prepared_claim_is_refused_with_its_holder(pool: ClaimPool) -> None:
    error = refuse(pool, allocate_device("x0"), holdings=(DeviceHolding(OTHER, POOL, "x0"),))
    assert read_reason(error) == (
        f"device x0 of a.example/x is still prepared for the ResourceClaim default/claim-2 (UID {OTHER.uid}); it "
        "becomes free when the pod of that claim has ended"
    )
    assert isinstance(error, DeviceHeldError)
    assert (error.code, error.holder) == (ClaimErrorCode.DEVICE_IN_USE, OTHER)
    # The pod-resources API of the kubelet has no UID.
    named = replace(OTHER, uid="")
    error = refuse(pool, allocate_device("x0"), holdings=(DeviceHolding(named, POOL, "x0"),))
    assert read_reason(error) == (
        "device x0 of a.example/x is still prepared for the ResourceClaim default/claim-2; it becomes free when the "
        "pod of that claim has ended"
    )
    assert select(pool, allocate_device("x0"), holdings=(DeviceHolding(replace(CLAIM, uid=""), POOL, "x0"),))


def test_device_that_the_claim_itself_or_another_pool_has_is_free(pool: ClaimPool) -> None:
    holdings = (DeviceHolding(CLAIM, POOL, "x0"), DeviceHolding(OTHER, "node-1/other", "x0"))
    assert len(select(pool, allocate_device("x0"), holdings=holdings)) == 1


def test_admin_access_gets_a_device_of_another_claim_and_holds_none(pool: ClaimPool) -> None:
    results = parse(allocate_device("x0", admin=True), allocate_device("x1"))
    grants = select_grants(CLAIM, results, {POOL: pool}, [DeviceHolding(OTHER, POOL, "x0")])
    assert [grant.grant.id for grant in grants] == ["x0", "x1"]
    assert list_holdings(CLAIM, results) == (DeviceHolding(CLAIM, POOL, "x1"),)


def test_device_that_is_allocated_twice_in_a_claim_is_refused(pool: ClaimPool) -> None:
    assert len(select(pool, allocate_device("x0"), allocate_device("x0", "monitor", admin=True))) == 2
    error = refuse(pool, allocate_device("x0"), allocate_device("x0", "other"))
    assert error.code is ClaimErrorCode.DEVICE_IN_USE
    assert "device x0 of a.example/x is allocated to it twice" in str(error)


def test_device_of_a_pod_by_the_device_plugin_api_is_refused(pool: ClaimPool) -> None:
    used = replace(pool, used={"x0": "pod default/old"})
    error = refuse(used, allocate_device("x0"))
    assert "device x0 of a.example/x is in use by pod default/old" in str(error)
    assert error.code is ClaimErrorCode.DEVICE_IN_USE
    assert len(select(used, allocate_device("x0", admin=True), allocate_device("x1"))) == 2


def test_unhealthy_device_is_refused_with_the_reason(pool: ClaimPool) -> None:
    error = refuse(pool, allocate_device("x3"))
    assert "device x3 of a.example/x is unhealthy: its node is gone" in str(error)
    assert error.code is ClaimErrorCode.DEVICE_UNHEALTHY


@pytest.mark.parametrize(
    ("toleration", "is_tolerated"),
    [
        ({"key": GONE.key, "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": GONE.key, "value": "gone"}, True),
        ({"key": GONE.key, "operator": "", "value": "gone"}, True),
        ({"key": GONE.key, "operator": "Equal", "value": "gone", "effect": "NoSchedule"}, True),
        ({"key": GONE.key, "operator": "Equal", "value": "hot"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": GONE.key, "operator": "Unknown", "value": "gone"}, False),
    ],
)
def test_unhealthy_device_is_prepared_only_if_its_taint_is_tolerated(
    pool: ClaimPool, toleration: dict[str, str], *, is_tolerated: bool
) -> None:
    result = allocate_device("x3", tolerations=[toleration])
    if is_tolerated:
        assert [grant.grant.id for grant in select(pool, result)] == ["x3"]
    else:
        assert refuse(pool, result).code is ClaimErrorCode.DEVICE_UNHEALTHY


def test_every_taint_with_an_effect_has_to_be_tolerated(pool: ClaimPool) -> None:
    *others, last = pool.published.devices
    taints = (GONE, Taint("a", "", "NoExecute"), Taint("b", "", "None"))
    tainted = replace(pool, published=replace(pool.published, devices=(*others, replace(last, taints=taints))))
    first = {"key": GONE.key, "operator": "Exists"}
    assert refuse(tainted, allocate_device("x3", tolerations=[first])).code is ClaimErrorCode.DEVICE_UNHEALTHY
    assert select(tainted, allocate_device("x3", tolerations=[first, {"key": "a", "operator": "Exists"}]))


def test_unhealthy_device_without_a_taint_is_refused_for_any_toleration(pool: ClaimPool) -> None:
    *others, last = pool.published.devices
    untainted = replace(pool, published=replace(pool.published, devices=(*others, replace(last, taints=()))))
    unpublished = replace(pool, published=replace(pool.published, devices=tuple(others)))
    for changed in (untainted, unpublished):
        error = refuse(changed, allocate_device("x3", tolerations=[{"operator": "Exists"}]))
        assert error.code is ClaimErrorCode.DEVICE_UNHEALTHY


def test_edits_have_the_node_of_each_device_and_the_environment_of_the_request(
    tree: DeviceTree, pool: ClaimPool
) -> None:
    grants = select(pool, allocate_device("x2"), allocate_device("x0"), allocate_device("x1", "other"))
    edits = build_claim_edits(CLAIM, grants, tree.host)
    assert tuple(device.grant for device in edits) == grants
    assert [[node.host_path for node in device.edits.nodes] for device in edits] == [
        ["/dev/x2"],
        ["/dev/x0"],
        ["/dev/x1"],
    ]
    assert [dict(device.edits.env) for device in edits] == [
        {"DEVICES": "x0,x2"},
        {"DEVICES": "x0,x2"},
        {"DEVICES": "x1"},
    ]


def test_edits_have_no_annotations_which_cdi_does_not_have(tree: DeviceTree) -> None:
    pool = build_pool(build_offer(build_resource(annotations={"a": "b"}), tree.make_healthy("x0")))
    [device] = build_claim_edits(CLAIM, select(pool, allocate_device("x0")), tree.host)
    assert device.edits.annotations == ()


def test_unhealthy_device_that_is_tolerated_gets_its_edits(tree: DeviceTree, pool: ClaimPool) -> None:
    grants = select(pool, allocate_device("x3", admin=True), allocate_device("x0"))
    edits = build_claim_edits(CLAIM, grants, tree.host)
    assert [dict(device.edits.env) for device in edits] == [{"DEVICES": "x0,x3"}] * 2


def test_unhealthy_pool_of_tokens_that_is_tolerated_gets_its_edits(tree: DeviceTree) -> None:
    devices = [mark_unhealthy(tree.make_device(key), "it is hot") for key in ("x0", "x1")]
    pool = build_pool(build_offer(build_resource(tokens=2), devices))
    [token, _] = pool.offer.grants
    [device] = build_claim_edits(CLAIM, select(pool, allocate_device(token, admin=True)), tree.host)
    assert [node.host_path for node in device.edits.nodes] == ["/dev/x0", "/dev/x1"]


def test_device_whose_node_disappeared_is_refused(tree: DeviceTree, pool: ClaimPool) -> None:
    grants = select(pool, allocate_device("x0"))
    tree.unplug("/dev/x0")
    with pytest.raises(ClaimError, match=r"^ResourceClaim default/claim-1: a\.example/x device x0 cannot") as refused:
        build_claim_edits(CLAIM, grants, tree.host)
    assert refused.value.code is ClaimErrorCode.EDITS


def test_devices_of_a_request_with_one_container_path_are_refused(tree: DeviceTree) -> None:
    devices = [tree.make_device(key, tree.make_node(f"/dev/{key}", "/dev/x")) for key in ("x0", "x1")]
    pool = build_pool(build_offer(build_resource(), mark_healthy(*devices)))
    grants = select(pool, allocate_device("x0"), allocate_device("x1"))
    with pytest.raises(ClaimError, match="both map to /dev/x in the container"):
        build_claim_edits(CLAIM, grants, tree.host)
    assert (
        len(build_claim_edits(CLAIM, select(pool, allocate_device("x0"), allocate_device("x1", "b")), tree.host)) == 2
    )


def test_mounts_and_cdi_devices_of_others_are_those_of_the_device(tree: DeviceTree) -> None:
    for name in ("x0", "x1"):
        tree.make_directory(f"/opt/{name}")
    allocate = AllocateSpec(
        mounts=(build_mount_spec("/opt/${name}", "/opt/${name}"),),
        cdi_devices=(Template.parse("other.example/part=${name}"),),
    )
    pool = build_pool(build_offer(replace(build_resource(), allocate=allocate), tree.make_healthy("x0", "x1")))
    first, second = build_claim_edits(CLAIM, select(pool, allocate_device("x0"), allocate_device("x1")), tree.host)
    assert [mount.container_path for mount in first.edits.mounts] == ["/opt/x0"]
    assert second.edits.cdi_devices == ("other.example/part=x1",)


def test_programs_run_once_for_each_device_in_order(tree: DeviceTree) -> None:
    pre_start = PreStartSpec(LOCATION, (Template.parse("/bin/reset"), Template.parse("${name}")), 5.0)
    policy = Policy(programs=(Glob.parse("/bin/*"),))
    resource = replace(build_resource(replicas=2), pre_start=pre_start, policy=policy)
    pool = build_pool(build_offer(resource, tree.make_healthy("x0", "x1")))
    grants = select(pool, *(allocate_device(name) for name in ("x1-r0", "x0-r0", "x0-r1")))
    assert [run.arguments for run in list_claim_programs(CLAIM, grants)] == [("/bin/reset", "x0"), ("/bin/reset", "x1")]


def test_no_program_runs_for_a_device_with_admin_access(tree: DeviceTree) -> None:
    pre_start = PreStartSpec(LOCATION, (Template.parse("/bin/reset"), Template.parse("${name}")), 5.0)
    resource = replace(build_resource(), pre_start=pre_start, policy=Policy(programs=(Glob.parse("/**"),)))
    pool = build_pool(build_offer(resource, tree.make_healthy("x0", "x1")))
    grants = select(pool, allocate_device("x0", "watch", admin=True), allocate_device("x1"))
    assert [run.arguments for run in list_claim_programs(CLAIM, grants)] == [("/bin/reset", "x1")]


def test_program_that_the_policy_forbids_is_refused(tree: DeviceTree) -> None:
    pre_start = PreStartSpec(LOCATION, (Template.parse("/bin/reset"),), 5.0)
    pool = build_pool(build_offer(replace(build_resource(), pre_start=pre_start), tree.make_healthy("x0")))
    with pytest.raises(ClaimError, match="running /bin/reset before a container starts") as refused:
        list_claim_programs(CLAIM, select(pool, allocate_device("x0")))
    assert refused.value.code is ClaimErrorCode.PRE_START
    assert read_reason(refused.value)


_RESULTS = st.lists(
    st.builds(
        DeviceResult,
        request=st.sampled_from(("a", "b")),
        pool=st.sampled_from((POOL, "node-1/other")),
        device=st.sampled_from(("x0", "x1", "x2")),
        has_admin_access=st.sampled_from((False, False, True)),
    ),
    min_size=1,
    max_size=2,
)
_STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), _RESULTS), min_size=10, max_size=20)


@pytest.fixture(scope="module")
def offer() -> Iterator[ResourceOffer]:
    with open_tree(DeviceTree) as tree:
        yield build_offer(build_resource(), tree.make_healthy("x0", "x1", "x2"))


@settings(deadline=None)
@given(steps=_STEPS)
def test_no_two_prepared_claims_hold_a_device(
    offer: ResourceOffer, steps: list[tuple[int, bool, list[DeviceResult]]]
) -> None:
    pools = {POOL: build_pool(offer, {"x2": "pod default/old"}), "node-1/other": build_pool(offer)}
    prepared: dict[str, tuple[DeviceHolding, ...]] = {}
    for number, is_prepare, results in steps:
        claim = refer(number)
        if not is_prepare:
            prepared.pop(claim.uid, None)
            continue
        holdings = [held for held_by_claim in prepared.values() for held in held_by_claim]
        try:
            grants = select_grants(claim, results, pools, holdings)
        except ClaimError:
            continue
        assert [grant.result for grant in grants] == results
        prepared[claim.uid] = list_holdings(claim, results)
        held = [(held.pool, held.device) for held_by_claim in prepared.values() for held in held_by_claim]
        assert len(held) == len(set(held))
        assert (POOL, "x2") not in held
