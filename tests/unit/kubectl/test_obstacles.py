"""The filters of the scheduler; ``tests/cluster/test_stories.py`` compares them with a real scheduler."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.kubectl.objects import Taint, Toleration, decode_node, decode_pod
from genplug.kubectl.obstacles import (
    Requirement,
    find_exclusions,
    find_shortages,
    is_extended,
    sum_requests,
    tolerates,
)
from genplug.kubectl.quantity import format_quantity, parse_quantity
from tests.support.kubectl import Object, make_node, make_pod

THING = "test.example/thing"


def build_container(name: str, *, is_sidecar: bool = False, **requests: str) -> Object:
    container: Object = {"name": name, "resources": {"requests": requests}}
    return container | ({"restartPolicy": "Always"} if is_sidecar else {})


def sum_of(containers: list[Object], init_containers: list[Object] = [], **spec: Any) -> dict[str, Fraction]:  # noqa: B006
    return sum_requests(
        decode_pod(make_pod("pod", containers=containers, spec={"initContainers": init_containers, **spec}))
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", Fraction(4)),
        ("250m", Fraction(1, 4)),
        ("1.5", Fraction(3, 2)),
        ("1k", Fraction(1000)),
        ("2Ki", Fraction(2048)),
        ("1E", Fraction(10**18)),
        ("1e3", Fraction(1000)),
        ("5e-1", Fraction(1, 2)),
        ("100n", Fraction(1, 10**7)),
        ("", Fraction(0)),
        ("many", Fraction(0)),
        ("-1", Fraction(0)),
        ("9" * 100, Fraction(0)),
        ("1e20", Fraction(2**63 - 1)),
        ("64Ei", Fraction(2**63 - 1)),
        ("1e999999999", Fraction(2**63 - 1)),
        ("0e999999999", Fraction(0)),
        ("1e-999999999", Fraction(0)),
    ],
)
def test_quantity_is_parsed_exactly(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


def test_quantity_is_formatted_for_its_resource() -> None:
    assert format_quantity("cpu", Fraction(3, 4)) == "750m"
    assert format_quantity("memory", Fraction(3 << 29)) == "1.5Gi"
    assert format_quantity("pods", Fraction(110)) == "110"
    # The API server accepts such a request, and reduces it.
    assert format_quantity("memory", parse_quantity("1e999")) == "8Ei"


def test_containers_and_sidecars_are_added_and_init_containers_are_a_minimum() -> None:
    main = build_container("main", cpu="1")
    sidecar = build_container("sidecar", cpu="500m", is_sidecar=True)
    first, last = build_container("first", cpu="4"), build_container("last", cpu="4")
    assert sum_of([main, main])["cpu"] == 2
    assert sum_of([main], [first])["cpu"] == 4
    assert sum_of([main], [sidecar])["cpu"] == Fraction(3, 2)
    # An init container after a sidecar runs next to it, and an init container before it does not.
    assert sum_of([main], [sidecar, last])["cpu"] == Fraction(9, 2)
    assert sum_of([main], [first, sidecar])["cpu"] == 4


def test_requests_of_the_pod_replace_those_of_its_containers_except_for_devices() -> None:
    container = {"name": "main", "resources": {"requests": {"cpu": "1", THING: "2"}}}
    total = sum_of([container], resources={"requests": {"cpu": "3", THING: "9"}}, overhead={"cpu": "250m"})
    assert total == {"cpu": Fraction(13, 4), THING: Fraction(2)}


@given(
    main=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    init=st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=4),
)
def test_sum_is_the_largest_use_at_any_time(main: list[int], init: list[tuple[bool, int]]) -> None:
    """The model plays the start of the pod: init containers in order, sidecars that remain, then the containers."""
    running, peak = 0, 0
    for is_sidecar, count in init:
        peak = max(peak, running + count)
        running += count if is_sidecar else 0
    peak = max(peak, running + sum(main))
    containers = [build_container(f"c{index}", x=str(count)) for index, count in enumerate(main)]
    inits = [
        build_container(f"i{index}", is_sidecar=is_sidecar, x=str(count))
        for index, (is_sidecar, count) in enumerate(init)
    ]
    assert sum_of(containers, inits)["x"] == peak


@pytest.mark.parametrize(
    ("requirement", "labels", "is_met"),
    [
        (Requirement("a", "In", ("x", "y")), {"a": "y"}, True),
        (Requirement("a", "In", ("x",)), {}, False),
        (Requirement("a", "NotIn", ("x",)), {}, True),
        (Requirement("a", "NotIn", ("x",)), {"a": "x"}, False),
        (Requirement("a", "Exists"), {"a": ""}, True),
        (Requirement("a", "DoesNotExist"), {"a": ""}, False),
        (Requirement("a", "Gt", ("3",)), {"a": "4"}, True),
        (Requirement("a", "Gt", ("3",)), {"a": "3"}, False),
        (Requirement("a", "Lt", ("3",)), {"a": "-4"}, True),
        (Requirement("a", "Lt", ("3",)), {"a": "1.5"}, False),
        (Requirement("a", "Lt", ("3",)), {}, False),
        (Requirement("a", "Like", ("3",)), {"a": "3"}, False),
    ],
)
def test_requirement_matches_labels(requirement: Requirement, labels: dict[str, str], is_met: bool) -> None:  # noqa: FBT001
    assert requirement.matches(labels) is is_met


@pytest.mark.parametrize(
    ("toleration", "is_tolerated"),
    [
        (Toleration("k", "Equal", "5", "NoSchedule"), True),
        (Toleration("k", "Equal", "5", ""), True),
        (Toleration("k", "Equal", "6", ""), False),
        (Toleration("k", "Exists", "", ""), True),
        (Toleration("", "Exists", "", ""), True),
        (Toleration("", "Exists", "", "NoExecute"), False),
        (Toleration("j", "Exists", "", ""), False),
        (Toleration("k", "Gt", "4", ""), True),
        (Toleration("k", "Lt", "4", ""), False),
        (Toleration("k", "Gt", "four", ""), False),
    ],
)
def test_toleration_matches_a_taint(toleration: Toleration, is_tolerated: bool) -> None:  # noqa: FBT001
    assert tolerates(toleration, Taint("k", "5", "NoSchedule")) is is_tolerated


def list_kinds(node: Object, **spec: Any) -> list[str]:
    return [
        str(obstacle.kind)
        for obstacle in find_exclusions(decode_pod(make_pod("pod", spec=spec)).scheduling, decode_node(node))
    ]


def test_terms_of_an_affinity_are_alternatives() -> None:
    def build(*terms: Object) -> Object:
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}

    other = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-2"]}]}
    own = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-2"]}]}
    node = make_node("node-1")
    assert list_kinds(node, affinity=build(other)) == ["nodeAffinity"]
    assert list_kinds(node, affinity=build(other, own)) == []
    # A term without conditions matches no node.
    assert list_kinds(node, affinity=build({})) == ["nodeAffinity"]
    assert list_kinds(node, affinity=build({}, own)) == []


def test_cordoned_node_has_one_obstacle_although_it_has_a_taint_too() -> None:
    node = make_node("node-1", is_unschedulable=True)
    assert list_kinds(node) == ["cordoned"]
    tolerations = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]
    assert list_kinds(node, tolerations=tolerations) == []


def test_taint_without_an_excluding_effect_is_not_an_obstacle() -> None:
    assert list_kinds(make_node("node-1", taints=[{"key": "a", "effect": "PreferNoSchedule"}])) == []


def test_node_with_its_limit_of_pods_is_short() -> None:
    node = decode_node(make_node("node-1"))
    assert not list(find_shortages({}, node, {}, 109))
    [shortage] = find_shortages({}, node, {}, 110)
    assert shortage.text == "runs 110 pods, and its limit is 110"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (THING, True),
        ("cpu", False),
        ("hugepages-2Mi", False),
        ("kubernetes.io/batch", False),
        ("attachable.kubernetes.io/x", False),
        ("requests.example.com/x", False),
    ],
)
def test_extended_resources_have_a_domain_outside_kubernetes(name: str, expected: bool) -> None:  # noqa: FBT001
    assert is_extended(name) is expected
