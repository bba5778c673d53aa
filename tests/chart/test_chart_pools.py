"""Pools: exactly one agent on every node, and what a pool says over what is common."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.chart import (
    FUSE,
    HELMS,
    MINIMAL,
    RenderError,
    agent,
    at,
    configuration,
    daemonsets,
    over,
    pod,
    policy,
    render,
)

pytestmark = pytest.mark.helm

Node = dict[str, str]

SERIAL = "devices.example.com/serial"
CAMERA = "devices.example.com/camera"
POOLS = ("edge", "lab", "x-1")
LABEL_VALUES = (*POOLS, "default", "edge-a", "Edge", "1", "")
POOL_LABELS = ("genplug.io/pool", "eks.amazonaws.com/nodegroup")
OTHER_LABELS = {"kubernetes.io/arch": ("amd64", "arm64"), "example.com/slots": ("2", "10")}
NAMES = ("n1", "n2")


def nodes(pool_label: str) -> Iterator[Node]:
    """Every node that these labels can make; `name` stands for metadata.name."""
    choices = {
        "name": NAMES,
        "kubernetes.io/os": ("linux", "windows"),
        pool_label: (None, *LABEL_VALUES),
        **{label: (None, *values) for label, values in OTHER_LABELS.items()},
    }
    for values in itertools.product(*choices.values()):
        yield {label: value for label, value in zip(choices, values, strict=True) if value is not None}


def holds(requirement: Mapping[str, Any], labels: Node) -> bool:
    """Judge one requirement as the scheduler does."""
    value, wanted = labels.get(requirement["key"]), requirement.get("values", [])
    match requirement["operator"]:
        case "In":
            return value is not None and value in wanted
        case "NotIn":
            return value is None or value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(wanted[0])
        case "Lt":
            return value is not None and int(value) < int(wanted[0])
    raise AssertionError(requirement)


def term_holds(term: Mapping[str, Any], node: Node) -> bool:
    expressions, fields = term.get("matchExpressions", []), term.get("matchFields", [])
    # An empty term matches no node.
    return bool(expressions or fields) and all(
        [holds(one, node) for one in expressions] + [holds(one | {"key": "name"}, node) for one in fields]
    )


def runs_on(spec: Mapping[str, Any], node: Node) -> bool:
    """Say whether a pod with this spec may be on the node."""
    if any(node.get(label) != value for label, value in spec.get("nodeSelector", {}).items()):
        return False
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(term_holds(term, node) for term in required["nodeSelectorTerms"])


def requirements(pool_label: str) -> st.SearchStrategy[dict[str, Any]]:
    labels = {"kubernetes.io/arch": OTHER_LABELS["kubernetes.io/arch"], pool_label: LABEL_VALUES}

    def of(label: str) -> st.SearchStrategy[dict[str, Any]]:
        listed = st.lists(st.sampled_from(labels[label]), min_size=1, max_size=3, unique=True)
        return st.one_of(
            st.builds(
                lambda op, v: {"key": label, "operator": op, "values": v}, st.sampled_from(["In", "NotIn"]), listed
            ),
            st.sampled_from([{"key": label, "operator": op} for op in ("Exists", "DoesNotExist")]),
        )

    numbers = st.sampled_from([{"key": "example.com/slots", "operator": op, "values": ["5"]} for op in ("Gt", "Lt")])
    return st.one_of(*map(of, labels), numbers)


def selections(pool_label: str) -> st.SearchStrategy[dict[str, Any]]:
    """What an operator may ask of nodes, in `daemonset`."""
    named = st.lists(st.sampled_from(NAMES), min_size=1, max_size=1).map(
        lambda names: [{"key": "metadata.name", "operator": "In", "values": names}]
    )
    expressions = st.lists(requirements(pool_label), min_size=1, max_size=2)
    term = st.one_of(
        st.fixed_dictionaries({"matchExpressions": expressions}, optional={"matchFields": named}),
        st.fixed_dictionaries({"matchFields": named}),
    )
    terms = st.lists(term, min_size=1, max_size=3)
    affinity = terms.map(
        lambda terms: at(
            ("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"), {"nodeSelectorTerms": terms}
        )
    )
    selector = st.dictionaries(
        st.just("kubernetes.io/arch"), st.sampled_from(OTHER_LABELS["kubernetes.io/arch"]), max_size=1
    )
    return st.fixed_dictionaries({}, optional={"affinity": affinity, "nodeSelector": selector})


@st.composite
def pooled(draw: st.DrawFn, *, narrowed: bool) -> dict[str, Any]:
    """Draw values with pools; `narrowed`: with wishes of the operator's own about nodes."""
    pool_label = draw(st.sampled_from(POOL_LABELS))
    wishes = selections(pool_label) if narrowed else st.just({})
    pools: dict[str, Any] = {}
    free = set(LABEL_VALUES)
    for name in draw(st.lists(st.sampled_from(POOLS), unique=True)):
        own = draw(st.lists(st.sampled_from(LABEL_VALUES), min_size=1, max_size=3, unique=True))
        is_enabled = draw(st.booleans()) and set(own) <= free
        pool: dict[str, Any] = {"labelValues": own, "daemonset": draw(wishes)}
        if own == [name] and draw(st.booleans()):
            del pool["labelValues"]
        if not is_enabled:
            pool = draw(st.sampled_from([{**pool, "enabled": False}, None]))
        elif draw(st.booleans()):
            pool["enabled"] = True
        if is_enabled:
            free -= set(own)
        pools[name] = pool
    default = {"daemonset": draw(wishes)}
    # Without any pool there would be nothing to install.
    choices = [None, default, {"enabled": True}]
    choices += [{"enabled": False}] if free < set(LABEL_VALUES) else []
    default = draw(st.sampled_from(choices))
    if default is not None or draw(st.booleans()):
        pools["default"] = default
    return over(MINIMAL, {"poolLabel": pool_label, "pools": pools, "daemonset": draw(wishes)})


def enabled(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the pools that are to be there, the default one among them."""
    pools = {"default": {}} | {name: pool for name, pool in values["pools"].items() if pool is not None}
    return {name: pool for name, pool in pools.items() if pool.get("enabled", True)}


def claimants(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the pool of each label value, by what the pools say."""
    others = {name: pool for name, pool in enabled(values).items() if name != "default"}
    return {value: name for name, pool in others.items() for value in pool.get("labelValues", [name])}


# Each example is a run of helm and a thousand nodes; a failure is shrunk, which takes many more.
each = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.timeout(300)
@each
@given(values=pooled(narrowed=False))
# Trap: excluding the pools' names instead of their label values.
@example(values=over(MINIMAL, {"poolLabel": POOL_LABELS[0], "pools": {"edge": {"labelValues": ["edge-a", "1"]}}}))
def test_every_node_has_exactly_one_agent_and_none_where_the_default_pool_is_off(values: dict[str, Any]) -> None:
    found = daemonsets(render(values))
    assert set(found) == set(enabled(values))
    claimed = claimants(values)
    for node in nodes(values["poolLabel"]):
        agents = [pool for pool, daemonset in found.items() if runs_on(pod(daemonset), node)]
        pool = claimed.get(node.get(values["poolLabel"], "-"), "default")
        is_served = node["kubernetes.io/os"] == "linux" and pool in enabled(values)
        assert agents == ([pool] if is_served else []), node


@pytest.mark.timeout(300)
@each
@given(values=pooled(narrowed=True))
def test_the_operators_own_wishes_narrow_a_pool_and_never_widen_it(values: dict[str, Any]) -> None:
    found = daemonsets(render(values))
    claimed = claimants(values)
    wishes = {}
    for name, pool in enabled(values).items():
        wish = over(values["daemonset"], pool.get("daemonset", {}))
        wishes[name] = over({"nodeSelector": {"kubernetes.io/os": "linux"}}, wish)
    for node in nodes(values["poolLabel"]):
        agents = [pool for pool, daemonset in found.items() if runs_on(pod(daemonset), node)]
        pool = claimed.get(node.get(values["poolLabel"], "-"), "default")
        is_served = pool in wishes and runs_on(wishes[pool], node)
        assert agents == ([pool] if is_served else []), node


def test_what_the_operator_prefers_and_the_alternatives_stay_beside_what_the_pool_requires() -> None:
    preferred = [{"weight": 1, "preference": {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}}]
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in ("a", "b")]
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    found = render(over(MINIMAL, {"daemonset": {"affinity": {"nodeAffinity": affinity}}, "pools": {"lab": {}}}))
    of_pool = {"key": "genplug.io/pool", "operator": "In", "values": ["lab"]}
    assert pod(daemonsets(found)["lab"])["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [*term["matchExpressions"], of_pool]} for term in terms]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }


@pytest.mark.parametrize("label", POOL_LABELS)
def test_without_pools_there_is_one_daemonset_for_every_linux_node(label: str) -> None:
    found = daemonsets(render(over(MINIMAL, {"poolLabel": label})))
    assert {node["kubernetes.io/os"] for node in nodes(label) if runs_on(pod(found["default"]), node)} == {"linux"}
    assert "affinity" not in pod(found["default"])
    assert list(found) == ["default"]


def test_objects_are_named_after_the_release_and_the_pool() -> None:
    pools = {"lab": {"policy": {"devices": {"deny": ["/dev/x"]}}}}
    found = render(over(MINIMAL, {"pools": pools, "policy": {"resources": ["*"]}}))
    assert {name for kind, name in found if kind == "DaemonSet"} == {"genplug", "genplug-lab"}
    assert {name for kind, name in found if kind == "ConfigMap"} == {
        "genplug-config",
        "genplug-lab-config",
        "genplug-policy",
        "genplug-lab-policy",
    }


def test_the_daemonsets_of_two_pools_never_select_each_others_pods() -> None:
    found = daemonsets(render(over(MINIMAL, {"pools": {"lab": {}}})))
    for pool, daemonset in found.items():
        selector = daemonset["spec"]["selector"]["matchLabels"]
        assert selector == {
            "app.kubernetes.io/name": "genplug",
            "app.kubernetes.io/instance": "genplug",
            "genplug.io/pool": pool,
        }
        assert selector.items() <= daemonset["spec"]["template"]["metadata"]["labels"].items()


def test_no_label_of_the_operators_own_takes_a_pod_from_its_daemonset() -> None:
    labels = {"genplug.io/pool": "mine", "app.kubernetes.io/name": "mine"}
    found = daemonsets(render(over(MINIMAL, {"commonLabels": labels, "daemonset": {"podLabels": labels}})))
    selector = found["default"]["spec"]["selector"]["matchLabels"].items()
    assert selector <= found["default"]["spec"]["template"]["metadata"]["labels"].items()


def test_two_pools_may_not_claim_the_same_nodes() -> None:
    pools = {"edge": {"labelValues": ["a", "shared"]}, "lab": {"labelValues": ["shared"]}}
    with pytest.raises(RenderError, match=r"pools\.edge and pools\.lab both claim .* genplug\.io/pool=shared"):
        render(over(MINIMAL, {"pools": pools}))
    pools["lab"]["enabled"] = False  # type: ignore[assignment]
    assert set(daemonsets(render(over(MINIMAL, {"pools": pools})))) == {"default", "edge"}


COMMON = over(
    MINIMAL,
    {
        "config": {
            "resources": {
                SERIAL: {
                    "devices": [{"glob": "/dev/ttyUSB*"}],
                    "allocate": {"env": {"PORTS": "${path}"}, "annotations": {"a.example/b": "c"}},
                    "health": {"sticky": True, "removalGracePeriodSeconds": 300, "probes": [{"pci": {}}]},
                }
            }
        },
        "policy": {"devices": {"block": True, "deny": ["/dev/ttyUSB9"]}},
        "daemonset": {
            "privileged": True,
            "terminationGracePeriodSeconds": 30,
            "podAnnotations": {"a.example/b": "c"},
        },
    },
)


@pytest.mark.parametrize("helm", HELMS)
def test_null_deletes_a_resource_of_the_common_configuration_in_one_pool(helm: str) -> None:
    camera = {CAMERA: {"devices": [{"glob": "/dev/video*"}]}}
    pools = {"lab": {"config": {"resources": {SERIAL: None, **camera}}}, "edge": {}}
    found = render(over(COMMON, {"pools": pools}), helm=helm)
    assert set(configuration(found, "lab")["resources"]) == {FUSE, CAMERA}
    assert set(configuration(found, "edge")["resources"]) == {FUSE, SERIAL}
    assert set(configuration(found)["resources"]) == {FUSE, SERIAL}


@pytest.mark.parametrize("helm", HELMS)
def test_null_deletes_what_an_earlier_file_set(helm: str) -> None:
    first = over(COMMON, {"pools": {"lab": {"daemonset": {"privileged": False}}, "edge": {}}})
    found = render(first, {"config": {"resources": {SERIAL: None}}, "pools": {"lab": None}}, helm=helm)
    assert set(daemonsets(found)) == {"default", "edge"}
    assert set(configuration(found)["resources"]) == {FUSE}


@pytest.mark.parametrize("helm", HELMS)
def test_null_deletes_a_default_of_the_chart_and_a_part_of_a_resource(helm: str) -> None:
    resource = {"allocate": {"env": {"PORTS": None}}, "health": None}
    lab = {"config": {"resources": {SERIAL: resource}}, "daemonset": {"resources": {"limits": None}}, "policy": None}
    found = render(over(COMMON, {"pools": {"lab": lab}, "daemonset": {"tolerations": None}}), helm=helm)
    assert configuration(found, "lab")["resources"][SERIAL] == {
        "devices": [{"glob": "/dev/ttyUSB*"}],
        "allocate": {"env": {}, "annotations": {"a.example/b": "c"}},
    }
    assert agent(daemonsets(found)["lab"])["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}}
    assert "limits" in agent(daemonsets(found)["default"])["resources"]
    assert "--policy" not in agent(daemonsets(found)["lab"])["args"]
    assert "--policy" in agent(daemonsets(found)["default"])["args"]
    assert not any("tolerations" in pod(daemonset) for daemonset in daemonsets(found).values())


@pytest.mark.parametrize("helm", HELMS)
def test_null_for_a_node_reaches_the_node(helm: str) -> None:
    nodes = {"lab-7.example.com": {"resources": {SERIAL: None}}}
    found = render(over(COMMON, {"config": {"nodes": nodes}, "pools": {"lab": {}}}), helm=helm)
    for pool in ("default", "lab"):
        assert configuration(found, pool, "node.lab-7.example.com.yaml")["resources"] == {SERIAL: None}


EMPTY = {
    "false of the pod": (("daemonset", "privileged"), False),
    "0 of the pod": (("daemonset", "terminationGracePeriodSeconds"), 0),
    "'' of the pod": (("daemonset", "priorityClassName"), ""),
    "[] of the pod": (("daemonset", "tolerations"), []),
    "false of a resource": (("config", "resources", SERIAL, "health", "sticky"), False),
    "0 of a resource": (("config", "resources", SERIAL, "health", "removalGracePeriodSeconds"), 0),
    "'' of a resource": (("config", "resources", SERIAL, "allocate", "env", "PORTS"), ""),
    "[] of a resource": (("config", "resources", SERIAL, "health", "probes"), []),
    "false of the policy": (("policy", "devices", "block"), False),
    "[] of the policy": (("policy", "devices", "deny"), []),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_value_of_a_pool_wins_over_the_common_one(case: str) -> None:
    path, value = EMPTY[case]
    found = render(over(COMMON, {"pools": {"lab": at(path, value)}}))

    def seen(pool: str) -> Any:
        match path:
            case ("daemonset", "privileged"):
                return agent(daemonsets(found)[pool])["securityContext"]["privileged"]
            # Kubernetes takes a missing list or name for an empty one.
            case ("daemonset", key):
                return pod(daemonsets(found)[pool]).get(key, type(value)())
        tree: Any = configuration(found, pool) if path[0] == "config" else policy(found, pool)
        for key in path[1:]:
            tree = tree[key]
        return tree

    assert seen("lab") == value
    assert type(seen("lab")) is type(value)
    assert seen("default") != value


def test_maps_of_a_pool_are_merged_and_lists_replaced() -> None:
    common = {
        "nodeSelector": {"a": "1"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "podAnnotations": {"a": "1"},
    }
    lab = {
        "nodeSelector": {"b": "2"},
        "tolerations": [{"key": "b", "operator": "Exists"}],
        "podAnnotations": {"a": "2"},
    }
    found = daemonsets(render(over(MINIMAL, {"daemonset": common, "pools": {"lab": {"daemonset": lab}}})))
    assert pod(found["lab"])["nodeSelector"] == {"kubernetes.io/os": "linux", "a": "1", "b": "2"}
    assert pod(found["default"])["nodeSelector"] == {"kubernetes.io/os": "linux", "a": "1"}
    assert pod(found["lab"])["tolerations"] == lab["tolerations"]
    assert found["lab"]["spec"]["template"]["metadata"]["annotations"]["a"] == "2"


def test_what_a_pool_says_changes_no_other_pool() -> None:
    edge = {"config": {"resources": {FUSE: {"tokens": 5}}}, "daemonset": {"privileged": True}}
    without, found = (
        render(over(MINIMAL, {"pools": {"edge": {}, "lab": {}}})),
        render(over(MINIMAL, {"pools": {"edge": edge, "lab": {}}})),
    )
    assert {key for key in found if found[key] != without[key]} == {
        ("ConfigMap", "genplug-edge-config"),
        ("DaemonSet", "genplug-edge"),
    }
