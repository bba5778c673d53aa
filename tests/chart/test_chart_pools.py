"""Node pools: every node runs exactly one agent, and the values of a pool are merged over the common values."""

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
    get_agent,
    get_daemonsets,
    get_pod_spec,
    merge_values,
    nest_value,
    read_configuration,
    read_policy,
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


def generate_nodes(pool_label: str) -> Iterator[Node]:
    """Yield a node for every combination of labels; the key `name` is metadata.name."""
    choices = {
        "name": NAMES,
        "kubernetes.io/os": ("linux", "windows"),
        pool_label: (None, *LABEL_VALUES),
        **{label: (None, *values) for label, values in OTHER_LABELS.items()},
    }
    for values in itertools.product(*choices.values()):
        yield {label: value for label, value in zip(choices, values, strict=True) if value is not None}


def is_requirement_met(requirement: Mapping[str, Any], labels: Node) -> bool:
    """Return whether the labels satisfy a requirement, by the rules of the scheduler."""
    value, expected = labels.get(requirement["key"]), requirement.get("values", [])
    match requirement["operator"]:
        case "In":
            return value is not None and value in expected
        case "NotIn":
            return value is None or value not in expected
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(expected[0])
        case "Lt":
            return value is not None and int(value) < int(expected[0])
    raise AssertionError(requirement)


def is_term_met(term: Mapping[str, Any], node: Node) -> bool:
    expressions, fields = term.get("matchExpressions", []), term.get("matchFields", [])
    # An empty term matches no node.
    return bool(expressions or fields) and all(
        [is_requirement_met(requirement, node) for requirement in expressions]
        + [is_requirement_met(field | {"key": "name"}, node) for field in fields]
    )


def is_schedulable(spec: Mapping[str, Any], node: Node) -> bool:
    """Return whether the scheduler may place a pod with this spec on the node."""
    if any(node.get(label) != value for label, value in spec.get("nodeSelector", {}).items()):
        return False
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(is_term_met(term, node) for term in required["nodeSelectorTerms"])


def draw_requirements(pool_label: str) -> st.SearchStrategy[dict[str, Any]]:
    labels = {"kubernetes.io/arch": OTHER_LABELS["kubernetes.io/arch"], pool_label: LABEL_VALUES}

    def draw_for_label(label: str) -> st.SearchStrategy[dict[str, Any]]:
        listed = st.lists(st.sampled_from(labels[label]), min_size=1, max_size=3, unique=True)
        return st.one_of(
            st.builds(
                lambda op, v: {"key": label, "operator": op, "values": v}, st.sampled_from(["In", "NotIn"]), listed
            ),
            st.sampled_from([{"key": label, "operator": op} for op in ("Exists", "DoesNotExist")]),
        )

    numbers = st.sampled_from([{"key": "example.com/slots", "operator": op, "values": ["5"]} for op in ("Gt", "Lt")])
    return st.one_of(*map(draw_for_label, labels), numbers)


def draw_node_selections(pool_label: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for node selections in `daemonset`."""
    named = st.lists(st.sampled_from(NAMES), min_size=1, max_size=1).map(
        lambda names: [{"key": "metadata.name", "operator": "In", "values": names}]
    )
    expressions = st.lists(draw_requirements(pool_label), min_size=1, max_size=2)
    term = st.one_of(
        st.fixed_dictionaries({"matchExpressions": expressions}, optional={"matchFields": named}),
        st.fixed_dictionaries({"matchFields": named}),
    )
    terms = st.lists(term, min_size=1, max_size=3)
    affinity = terms.map(
        lambda terms: nest_value(
            ("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"), {"nodeSelectorTerms": terms}
        )
    )
    selector = st.dictionaries(
        st.just("kubernetes.io/arch"), st.sampled_from(OTHER_LABELS["kubernetes.io/arch"]), max_size=1
    )
    return st.fixed_dictionaries({}, optional={"affinity": affinity, "nodeSelector": selector})


@st.composite
def draw_pools(draw: st.DrawFn, *, has_selections: bool) -> dict[str, Any]:
    """Draw values with pools, with node selections of the operator if `has_selections`."""
    pool_label = draw(st.sampled_from(POOL_LABELS))
    selections = draw_node_selections(pool_label) if has_selections else st.just({})
    pools: dict[str, Any] = {}
    free = set(LABEL_VALUES)
    for name in draw(st.lists(st.sampled_from(POOLS), unique=True)):
        label_values = draw(st.lists(st.sampled_from(LABEL_VALUES), min_size=1, max_size=3, unique=True))
        is_enabled = draw(st.booleans()) and set(label_values) <= free
        pool: dict[str, Any] = {"labelValues": label_values, "daemonset": draw(selections)}
        if label_values == [name] and draw(st.booleans()):
            del pool["labelValues"]
        if not is_enabled:
            pool = draw(st.sampled_from([{**pool, "enabled": False}, None]))
        elif draw(st.booleans()):
            pool["enabled"] = True
        if is_enabled:
            free -= set(label_values)
        pools[name] = pool
    default = {"daemonset": draw(selections)}
    # The chart rejects values in which every pool is disabled.
    choices = [None, default, {"enabled": True}]
    choices += [{"enabled": False}] if free < set(LABEL_VALUES) else []
    default = draw(st.sampled_from(choices))
    if default is not None or draw(st.booleans()):
        pools["default"] = default
    return merge_values(MINIMAL, {"poolLabel": pool_label, "pools": pools, "daemonset": draw(selections)})


def get_enabled_pools(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the enabled pools, including the default pool."""
    pools = {"default": {}} | {name: pool for name, pool in values["pools"].items() if pool is not None}
    return {name: pool for name, pool in pools.items() if pool.get("enabled", True)}


def map_label_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the pool that claims each label value."""
    others = {name: pool for name, pool in get_enabled_pools(values).items() if name != "default"}
    return {value: name for name, pool in others.items() for value in pool.get("labelValues", [name])}


# Few examples, because each example runs Helm and checks a thousand nodes.
property_settings = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.timeout(300)
@property_settings
@given(values=draw_pools(has_selections=False))
# A chart that excluded the names of the pools instead of their label values would fail here.
@example(
    values=merge_values(MINIMAL, {"poolLabel": POOL_LABELS[0], "pools": {"edge": {"labelValues": ["edge-a", "1"]}}})
)
def test_every_node_of_an_enabled_pool_runs_exactly_one_agent(values: dict[str, Any]) -> None:
    found = get_daemonsets(render(values))
    assert set(found) == set(get_enabled_pools(values))
    claimed = map_label_values(values)
    for node in generate_nodes(values["poolLabel"]):
        agents = [pool for pool, daemonset in found.items() if is_schedulable(get_pod_spec(daemonset), node)]
        pool = claimed.get(node.get(values["poolLabel"], "-"), "default")
        is_served = node["kubernetes.io/os"] == "linux" and pool in get_enabled_pools(values)
        assert agents == ([pool] if is_served else []), node


@pytest.mark.timeout(300)
@property_settings
@given(values=draw_pools(has_selections=True))
def test_operator_affinity_narrows_a_pool_and_never_widens_it(values: dict[str, Any]) -> None:
    found = get_daemonsets(render(values))
    claimed = map_label_values(values)
    selections = {}
    for name, settings_of_pool in get_enabled_pools(values).items():
        selection = merge_values(values["daemonset"], settings_of_pool.get("daemonset", {}))
        selections[name] = merge_values({"nodeSelector": {"kubernetes.io/os": "linux"}}, selection)
    for node in generate_nodes(values["poolLabel"]):
        agents = [pool for pool, daemonset in found.items() if is_schedulable(get_pod_spec(daemonset), node)]
        pool = claimed.get(node.get(values["poolLabel"], "-"), "default")
        is_served = pool in selections and is_schedulable(selections[pool], node)
        assert agents == ([pool] if is_served else []), node


def test_operator_terms_and_preferences_are_kept_with_the_pool_requirement() -> None:
    preferred = [{"weight": 1, "preference": {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}}]
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in ("a", "b")]
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    found = render(merge_values(MINIMAL, {"daemonset": {"affinity": {"nodeAffinity": affinity}}, "pools": {"lab": {}}}))
    pool_requirement = {"key": "genplug.io/pool", "operator": "In", "values": ["lab"]}
    assert get_pod_spec(get_daemonsets(found)["lab"])["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [*term["matchExpressions"], pool_requirement]} for term in terms]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }


@pytest.mark.parametrize("label", POOL_LABELS)
def test_values_without_pools_render_one_daemonset_for_all_linux_nodes(label: str) -> None:
    found = get_daemonsets(render(merge_values(MINIMAL, {"poolLabel": label})))
    assert {
        node["kubernetes.io/os"]
        for node in generate_nodes(label)
        if is_schedulable(get_pod_spec(found["default"]), node)
    } == {"linux"}
    assert "affinity" not in get_pod_spec(found["default"])
    assert list(found) == ["default"]


def test_objects_are_named_after_the_release_and_the_pool() -> None:
    pools = {"lab": {"policy": {"devices": {"deny": ["/dev/x"]}}}}
    found = render(merge_values(MINIMAL, {"pools": pools, "policy": {"resources": ["*"]}}))
    assert {name for kind, name in found if kind == "DaemonSet"} == {"genplug", "genplug-lab"}
    assert {name for kind, name in found if kind == "ConfigMap"} == {
        "genplug-config",
        "genplug-lab-config",
        "genplug-policy",
        "genplug-lab-policy",
    }


def test_daemonset_selectors_of_two_pools_do_not_overlap() -> None:
    found = get_daemonsets(render(merge_values(MINIMAL, {"pools": {"lab": {}}})))
    for pool, daemonset in found.items():
        selector = daemonset["spec"]["selector"]["matchLabels"]
        assert selector == {
            "app.kubernetes.io/name": "genplug",
            "app.kubernetes.io/instance": "genplug",
            "genplug.io/pool": pool,
        }
        assert selector.items() <= daemonset["spec"]["template"]["metadata"]["labels"].items()


def test_operator_labels_do_not_override_selector_labels() -> None:
    labels = {"genplug.io/pool": "mine", "app.kubernetes.io/name": "mine"}
    found = get_daemonsets(render(merge_values(MINIMAL, {"commonLabels": labels, "daemonset": {"podLabels": labels}})))
    selector = found["default"]["spec"]["selector"]["matchLabels"].items()
    assert selector <= found["default"]["spec"]["template"]["metadata"]["labels"].items()


def test_two_pools_with_the_same_label_value_are_rejected() -> None:
    pools = {"edge": {"labelValues": ["a", "shared"]}, "lab": {"labelValues": ["shared"]}}
    with pytest.raises(RenderError, match=r"pools\.edge and pools\.lab both claim .* genplug\.io/pool=shared"):
        render(merge_values(MINIMAL, {"pools": pools}))
    pools["lab"]["enabled"] = False  # type: ignore[assignment]
    assert set(get_daemonsets(render(merge_values(MINIMAL, {"pools": pools})))) == {"default", "edge"}


COMMON = merge_values(
    MINIMAL,
    {
        "config": {
            "resources": {
                SERIAL: {
                    "devices": [{"glob": "/dev/ttyUSB*"}],
                    "allocate": {"env": {"PORTS": "${path}"}, "inject": "nodes"},
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
def test_null_in_a_pool_removes_a_common_resource(helm: str) -> None:
    camera = {CAMERA: {"devices": [{"glob": "/dev/video*"}]}}
    pools = {"lab": {"config": {"resources": {SERIAL: None, **camera}}}, "edge": {}}
    found = render(merge_values(COMMON, {"pools": pools}), helm=helm)
    assert set(read_configuration(found, "lab")["resources"]) == {FUSE, CAMERA}
    assert set(read_configuration(found, "edge")["resources"]) == {FUSE, SERIAL}
    assert set(read_configuration(found)["resources"]) == {FUSE, SERIAL}


@pytest.mark.parametrize("helm", HELMS)
def test_null_removes_a_value_of_an_earlier_file(helm: str) -> None:
    first = merge_values(COMMON, {"pools": {"lab": {"daemonset": {"privileged": False}}, "edge": {}}})
    found = render(first, {"config": {"resources": {SERIAL: None}}, "pools": {"lab": None}}, helm=helm)
    assert set(get_daemonsets(found)) == {"default", "edge"}
    assert set(read_configuration(found)["resources"]) == {FUSE}


@pytest.mark.parametrize("helm", HELMS)
def test_null_removes_a_chart_default_and_a_part_of_a_resource(helm: str) -> None:
    resource = {"allocate": {"env": {"PORTS": None}}, "health": None}
    lab = {"config": {"resources": {SERIAL: resource}}, "daemonset": {"resources": {"limits": None}}, "policy": None}
    found = render(merge_values(COMMON, {"pools": {"lab": lab}, "daemonset": {"tolerations": None}}), helm=helm)
    assert read_configuration(found, "lab")["resources"][SERIAL] == {
        "devices": [{"glob": "/dev/ttyUSB*"}],
        "allocate": {"env": {}, "inject": "nodes"},
    }
    assert get_agent(get_daemonsets(found)["lab"])["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}}
    assert "limits" in get_agent(get_daemonsets(found)["default"])["resources"]
    assert "--policy" not in get_agent(get_daemonsets(found)["lab"])["args"]
    assert "--policy" in get_agent(get_daemonsets(found)["default"])["args"]
    assert not any("tolerations" in get_pod_spec(daemonset) for daemonset in get_daemonsets(found).values())


@pytest.mark.parametrize("helm", HELMS)
def test_null_for_a_node_is_passed_on_to_the_agent(helm: str) -> None:
    nodes = {"lab-7.example.com": {"resources": {SERIAL: None}}}
    found = render(merge_values(COMMON, {"config": {"nodes": nodes}, "pools": {"lab": {}}}), helm=helm)
    for pool in ("default", "lab"):
        assert read_configuration(found, pool, "node.lab-7.example.com.yaml")["resources"] == {SERIAL: None}


EMPTY_VALUES = {
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


@pytest.mark.parametrize("case", EMPTY_VALUES)
def test_empty_value_of_a_pool_overrides_the_common_value(case: str) -> None:
    path, value = EMPTY_VALUES[case]
    found = render(merge_values(COMMON, {"pools": {"lab": nest_value(path, value)}}))

    def read_value(pool: str) -> Any:
        match path:
            case ("daemonset", "privileged"):
                return get_agent(get_daemonsets(found)[pool])["securityContext"]["privileged"]
            # A missing list or name is equivalent to an empty value.
            case ("daemonset", key):
                return get_pod_spec(get_daemonsets(found)[pool]).get(key, type(value)())
        tree: Any = read_configuration(found, pool) if path[0] == "config" else read_policy(found, pool)
        for key in path[1:]:
            tree = tree[key]
        return tree

    assert read_value("lab") == value
    assert type(read_value("lab")) is type(value)
    assert read_value("default") != value


def test_maps_of_a_pool_are_merged_and_lists_are_replaced() -> None:
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
    found = get_daemonsets(render(merge_values(MINIMAL, {"daemonset": common, "pools": {"lab": {"daemonset": lab}}})))
    assert get_pod_spec(found["lab"])["nodeSelector"] == {"kubernetes.io/os": "linux", "a": "1", "b": "2"}
    assert get_pod_spec(found["default"])["nodeSelector"] == {"kubernetes.io/os": "linux", "a": "1"}
    assert get_pod_spec(found["lab"])["tolerations"] == lab["tolerations"]
    assert found["lab"]["spec"]["template"]["metadata"]["annotations"]["a"] == "2"


def test_values_of_a_pool_do_not_affect_other_pools() -> None:
    edge = {"config": {"resources": {FUSE: {"tokens": 5}}}, "daemonset": {"privileged": True}}
    without, found = (
        render(merge_values(MINIMAL, {"pools": {"edge": {}, "lab": {}}})),
        render(merge_values(MINIMAL, {"pools": {"edge": edge, "lab": {}}})),
    )
    assert {key for key in found if found[key] != without[key]} == {
        ("ConfigMap", "genplug-edge-config"),
        ("DaemonSet", "genplug-edge"),
    }
