"""Pools of devices with several names: which grants are in use, and which offers withhold them."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.alias_pool import Holding, Pool, record_allocation, record_usage, without_held
from genplug.allocation.offer import build_offer
from tests.support.allocation import DeviceTree, build_resource, mark_unhealthy
from tests.support.hardware import NAME

ALIAS, OTHER = "a.example/alias", "a.example/other"
USED = Holding(5, is_confirmed=True)
NEW = Holding(8, is_confirmed=False)


def test_allocated_grant_is_in_use_and_not_confirmed() -> None:
    assert record_allocation({}, NAME, ["x0", "x1"], 8) == {(NAME, "x0"): NEW, (NAME, "x1"): NEW}


def test_repeated_allocation_keeps_the_first_holding() -> None:
    pool: Pool = {(NAME, "x0"): USED, (ALIAS, "x1"): USED}
    assert record_allocation(pool, NAME, ["x0", "x1"], 8) == {**pool, (NAME, "x1"): NEW}


def test_used_grant_is_confirmed_since_its_allocation_or_now() -> None:
    pool: Pool = {(NAME, "x0"): NEW}
    assert record_usage(pool, [NAME, ALIAS], {NAME: ["x0"], ALIAS: ["x1"]}, 9, 60, 3) == {
        (NAME, "x0"): Holding(8, is_confirmed=True),
        (ALIAS, "x1"): Holding(9, is_confirmed=True),
    }


def test_usage_of_other_resources_is_ignored() -> None:
    assert record_usage({}, [NAME], {OTHER: ["x0"]}, 9, 60, 3) == {}


def test_confirmed_grant_is_free_after_polls_in_succession_without_it() -> None:
    pool: Pool = {(NAME, "x0"): USED}
    for misses in (1, 2):
        pool = record_usage(pool, [NAME], {}, 9, 60, 3)
        assert pool == {(NAME, "x0"): replace(USED, misses=misses)}
    assert record_usage(pool, [NAME], {NAME: ["x0"]}, 9, 60, 3) == {(NAME, "x0"): USED}
    assert record_usage(pool, [NAME], {}, 9, 60, 3) == {}


def test_confirmed_grant_is_free_after_a_poll_of_the_same_kubelet_without_it() -> None:
    pool = record_usage({}, [NAME], {NAME: ["x0"]}, 5, 60, 3, "first")
    for max_misses in (3, None):
        assert record_usage(pool, [NAME], {}, 9, 60, max_misses, "first") == {}
        for other in ("second", None):
            assert (NAME, "x0") in record_usage(pool, [NAME], {}, 9, 60, max_misses, other)
    restarted = record_usage(pool, [NAME], {}, 9, 60, 3, "second")
    # The new kubelet has not reported the pod: each of its polls is one miss.
    assert (NAME, "x0") in record_usage(restarted, [NAME], {}, 9, 60, 3, "second")


def test_poll_that_counts_no_miss_frees_nothing() -> None:
    pool: Pool = {(NAME, "x0"): replace(USED, misses=2)}
    assert record_usage(pool, [NAME], {}, 9, 60, None) == pool


def test_allocation_is_kept_without_a_pod_for_the_grace_period() -> None:
    pool: Pool = {(NAME, "x0"): NEW}
    assert record_usage(pool, [NAME], {}, 67.9, 60, 3) == pool
    assert record_usage(pool, [NAME], {}, 68, 60, 3) == {}


def test_unknown_pool_withholds_every_grant_with_the_reason(tree: DeviceTree) -> None:
    offer = without_held(build_offer(build_resource(), tree.make_healthy("x0", "x1")), None)
    assert [device.healthy for device in offer.listed] == [False, False]
    assert {grant.reason for grant in offer.grants.values()} == {
        "the resource has several names, and the kubelet has not reported yet which devices pods use"
    }


def test_grant_in_use_is_withheld_under_the_other_names_only(tree: DeviceTree) -> None:
    pool: Pool = {(NAME, "x0"): USED, (ALIAS, "x1"): USED, (NAME, "x2"): USED, (ALIAS, "x2"): USED, (ALIAS, "x9"): USED}
    offer = without_held(build_offer(build_resource(), tree.make_healthy("x0", "x1", "x2", "x3")), pool)
    assert {grant.id: grant.reason for grant in offer.grants.values()} == {
        "x0": "",
        "x1": f"a pod uses it as {ALIAS}",
        # Two pods use it, which the kubelet decided before the pool was known.
        "x2": "",
        "x3": "",
    }
    assert [device.healthy for device in offer.listed] == [True, False, True, True]


def test_withheld_unhealthy_grant_has_both_reasons(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), [mark_unhealthy(tree.make_device("x0"), "is broken")])
    assert without_held(offer, {(ALIAS, "x0"): USED}).grants["x0"].reason == f"is broken; a pod uses it as {ALIAS}"


def test_offer_without_withheld_grants_is_unchanged(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), tree.make_healthy("x0"))
    assert without_held(offer, {(NAME, "x0"): USED}) is offer


keys = st.tuples(st.sampled_from([NAME, ALIAS]), st.sampled_from(["x0", "x1"]))


@given(
    st.dictionaries(keys, st.builds(Holding, st.integers(0, 9), st.booleans())),
    st.dictionaries(st.sampled_from([NAME, ALIAS]), st.sets(st.sampled_from(["x0", "x1"]))),
)
def test_no_grant_that_a_pod_uses_is_free(pool: Pool, used: dict[str, set[str]]) -> None:
    after = record_usage(pool, [NAME, ALIAS], used, 10, 60, 1)
    assert {(name, grant) for name, grants in used.items() for grant in grants} <= after.keys()
    assert all(key in after for key, holding in pool.items() if not holding.is_confirmed)
    assert all(holding.is_confirmed == (key[1] in used.get(key[0], ())) for key, holding in after.items())
