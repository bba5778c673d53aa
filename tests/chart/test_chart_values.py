"""``genplug validate --values`` reads values files as Helm renders the chart: the same configurations and policies."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.config.chart_values import Pool, read_values
from genplug.config.files import ConfigFile
from genplug.config.manifest import find_manifests
from genplug.spec.diagnostic import Diagnostic, DiagnosticCode, ErrorCode
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.chart.test_chart_pod import REQUIREMENTS
from tests.support.chart import (
    CI_FILES,
    FUSE,
    HELMS,
    MINIMAL,
    RenderError,
    Values,
    merge_values,
    nest_value,
    parse_manifests,
    render_text,
    run_program,
)
from tests.support.configs import collect_diagnostics

pytestmark = pytest.mark.helm

Found = dict[tuple[str, str | None], tuple[str, Policy]]
"""The digest of the configuration and the policy, by pool and node."""


def evolve_policy(policy: Policy) -> Policy:
    """Return a policy without the name of its file."""
    return replace(policy, file="")


def read_rendered(*files: Values | str, helm: str = "helm4") -> Found:
    """Return what the agents read from the ConfigMaps that Helm renders."""
    manifests = find_manifests(render_text(*files, helm=helm), "rendered.yaml")
    found: Found = {}
    for manifest in manifests.configurations:
        limits = manifests.policy_of(manifest)
        policy = limits.policy(limits.policies[0]).policy if limits else DEFAULT_POLICY
        for node in (None, *manifest.nodes.values()):
            found[manifest.pool, node] = (manifest.load(node, None).sha256, evolve_policy(policy))
    return found


def read_own(*files: Values | str) -> Found:
    """Return what genplug reads from the values files."""
    texts = [
        ConfigFile(f"{number}.yaml", values if isinstance(values, str) else json.dumps(values))
        for number, values in enumerate(files)
    ]
    return {
        (pool.name, node): (pool.load(node, None).sha256, evolve_policy(pool.policy().policy))
        for pool in read_values(texts).pools()
        if not pool.existing_config_map
        for node in (None, *pool.nodes)
    }


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.name)
def test_values_file_is_read_as_helm_renders_it(path: Path, helm: str) -> None:
    text = path.read_text()
    assert read_own(text) == read_rendered(text, helm=helm)


def find_errors(*files: Values | str) -> tuple[Diagnostic, ...]:
    """Return the errors of values files as ``genplug validate --values`` finds them."""
    texts = [
        ConfigFile(f"{number}.yaml", values if isinstance(values, str) else json.dumps(values))
        for number, values in enumerate(files)
    ]
    pools: tuple[Pool, ...] = ()

    def read() -> None:
        nonlocal pools
        pools = read_values(texts).pools()

    errors = collect_diagnostics(read)
    for pool in pools:
        errors += collect_diagnostics(pool.policy)
        for node in (None, *pool.nodes) if not pool.existing_config_map else ():
            errors += collect_diagnostics(partial(load_limited, pool, node))
    return errors


def load_limited(pool: Pool, node: str | None) -> None:
    pool.load(node, pool.policy().policy)


@pytest.mark.parametrize("case", REQUIREMENTS)
@pytest.mark.parametrize("path", [(), ("pools", "lab")], ids=str)
def test_requirement_that_the_chart_rejects_is_an_error(case: str, path: tuple[str, ...]) -> None:
    resource, steps = REQUIREMENTS[case]
    values = merge_values(MINIMAL, nest_value((*path, "config", "resources", FUSE), resource))
    for changes, text in steps:
        values = merge_values(values, nest_value(path, changes) if path else changes)
        errors = find_errors(values)
        assert bool(errors) == bool(text), errors


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("names", "allowed", "is_valid"),
    [
        (["a.example/x"], ["a.example/*"], True),
        (["a.example/x"], ["b.example/*"], False),
        (["a.example/x"], [], False),
        (["a.example/x", "b.example/y"], ["{a,b}.example/?"], True),
        (["a.example/x", "c.example/y"], ["[ab].example/*"], False),
        (["a.example/x"], ["[!b].example/*"], True),
        (["aXexample/x"], ["a.example/*"], False),
        (["a.example/x2"], ["a.example/x{1..3}"], True),
    ],
)
def test_chart_rejects_resources_that_the_policy_of_their_pool_forbids(
    names: list[str], allowed: list[str], helm: str, *, is_valid: bool
) -> None:
    resources = {name: {"devices": [{"glob": f"/dev/{name}"}]} for name in names}
    pool = {"config": {"resources": resources}, "policy": {"resources": [*allowed, "devices.example.com/*"]}}
    values = merge_values(MINIMAL, {"pools": {"lab": pool}})
    if is_valid:
        assert render_text(values, helm=helm)
    else:
        with pytest.raises(RenderError, match=r"the policy does not allow this name. Add it to pools\.lab\.policy"):
            render_text(values, helm=helm)
    assert bool(find_errors(values)) != is_valid


SCALARS = """
188 0x10de 0o17 017 0888 0b101 1_000 +5 -7 1e3 1e-7 1.50 .5 12345678901234567890 1e21 1. 1__2 -0 0.0
yes Yes y n off True ~ null 2001-01-01 0000:00:02.0 a_b 1:30 0x 0b2 -0x1f = < "0x10" '017' ''
"""


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("scalar", [*SCALARS.split(), "!!str 12"])
def test_unquoted_scalar_is_read_as_helm_reads_it(scalar: str, helm: str) -> None:
    text = f"""
config:
  resources:
    {FUSE}:
      devices: [{{glob: /dev/fuse}}]
      allocate: {{env: {{A: {scalar}}}}}
"""
    try:
        rendered = read_rendered(text, helm=helm)
    except RenderError:
        # The schema of the chart rejects a value that is not a string; so does genplug.
        assert find_codes(lambda: read_own(text)) == [ErrorCode.WRONG_TYPE]
    else:
        assert read_own(text) == rendered


def test_merge_key_is_read_as_helm_reads_it() -> None:
    text = f"""
config:
  resources:
    {FUSE}: &shared {{devices: [{{glob: /dev/fuse}}], tokens: 3}}
    devices.example.com/own: {{<<: *shared, tokens: 5}}
    devices.example.com/first: {{<<: [{{tokens: 7}}, *shared]}}
"""
    assert read_own(text) == read_rendered(text)


def find_codes(call: Callable[[], object]) -> list[DiagnosticCode]:
    return [diagnostic.code for diagnostic in collect_diagnostics(call)]


RESOURCES = st.dictionaries(
    st.sampled_from(["a.example/a2", "a.example/a10", "a.example/b-1", "a.example/B"]),
    st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {"devices": st.just([{"glob": "/dev/x"}])},
            optional={
                "tokens": st.one_of(st.none(), st.integers(1, 9)),
                "allocate": st.dictionaries(
                    st.just("env"),
                    st.dictionaries(st.sampled_from(["A", "B1", "B02", "_c"]), st.one_of(st.none(), st.just("x"))),
                ),
            },
        ),
    ),
    max_size=3,
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "resources": RESOURCES,
        "defaults": st.fixed_dictionaries({}, optional={"topology": st.sampled_from(["none", None])}),
        "nodes": st.dictionaries(
            st.sampled_from(["n1", "n2"]),
            st.one_of(st.none(), st.fixed_dictionaries({}, optional={"resources": RESOURCES})),
        ),
    },
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "resources": st.sampled_from([["a.example/*"], [], None]),
        "devices": st.fixed_dictionaries(
            {}, optional={"allow": st.just(["/dev/x"]), "block": st.sampled_from([True, False, None])}
        ),
    },
)
POOLS = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={"enabled": st.booleans(), "config": CONFIGS, "policy": POLICIES}),
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "config": CONFIGS,
        "policy": POLICIES,
        "pools": st.dictionaries(st.sampled_from(["default", "lab", "edge"]), POOLS, max_size=2),
    },
)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files=st.lists(VALUES, max_size=2))
def test_values_files_are_merged_as_helm_and_the_chart_merge_them(files: list[Values]) -> None:
    files = [MINIMAL, *files]
    try:
        rendered = read_rendered(*files)
    except RenderError:
        print("RE")
        # The chart rejects more than genplug, for example a pool without resources.
        return
    print("OK")
    assert read_own(*files) == rendered


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("program", "code"), [("/opt/lab/check", 0), ("/opt/other/check", 78)])
def test_rendered_pool_is_validated_with_its_own_policy(program: str, code: int, helm: str) -> None:
    probes = {"health": {"probes": [{"exec": {"command": [program]}}]}}
    lab = {"config": {"resources": {FUSE: probes}}, "policy": {"exec": {"allow": ["/opt/lab/*"]}}}
    text = render_text(merge_values(MINIMAL, {"pools": {"lab": lab}}), helm=helm)
    run = run_program(sys.executable, "-m", "genplug", "validate", "-", text=text)
    assert run.returncode == code, run.stderr
    expected = "refused by 'exec.allow' of <stdin>[genplug-lab-policy/policy.yaml], which allows /opt/lab/*"
    assert (expected in run.stderr) == bool(code)
    # kubectl prints the ConfigMaps without the DaemonSets, which mount both.
    manifests = [manifest for manifest in parse_manifests(text).values() if manifest["kind"] == "ConfigMap"]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    assert run_program(sys.executable, "-m", "genplug", "validate", "-", text=listed).returncode == code
