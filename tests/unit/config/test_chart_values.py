"""Values files of the chart: any content gives a result or an error at its location.

tests/chart/test_chart_values.py compares the result with what Helm renders.
"""

import json
import tomllib
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.config.chart_values import Pool, read_values
from genplug.config.files import ConfigFile
from genplug.config.schema import VALUES_SCHEMA
from genplug.spec.limits import MAX_VALUES_FILE_BYTES
from tests.support.configs import collect_diagnostics
from tests.support.pages import ROOT

WORDS = """
config policy pools daemonset resources defaults nodes lab default enabled labelValues devices glob a.example/x health
probes open allocate mounts hostPath existingConfigMap cdiDevices hostMounts genplug n1
"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "/dev/x", "$x", "false", "y"]))
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=25,
)


def load(pool: Pool, node: str | None) -> None:
    pool.load(node, None)


@given(files=st.lists(TREES, min_size=1, max_size=2))
@settings(deadline=None, max_examples=400)
def test_any_values_give_a_result_or_errors_in_these_files(files: list[Any]) -> None:
    texts = [ConfigFile(f"{number}.yaml", json.dumps(tree)) for number, tree in enumerate(files)]
    pools: tuple[Pool, ...] = ()

    def read() -> None:
        nonlocal pools
        pools = read_values(texts).pools()

    errors = collect_diagnostics(read)
    for pool in pools:
        errors += collect_diagnostics(pool.policy)
        for node in (None, *pool.nodes):
            errors += collect_diagnostics(partial(load, pool, node))
    assert {error.location.file for error in errors} <= {text.name for text in texts}


@given(text=st.text("config: resources{}[]<&*!|-\n\t'\"~0x1fe", max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_values_or_errors(text: str) -> None:
    errors = collect_diagnostics(lambda: read_values([ConfigFile("values.yaml", text)]).pools())
    assert {error.location.file for error in errors} <= {"values.yaml"}


def test_wheel_contains_the_schema_of_the_chart() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"]["deploy/helm/genplug/values.schema.json"] == f"genplug/schemas/{VALUES_SCHEMA}"


def test_values_file_that_is_too_large_is_an_error() -> None:
    text = "a: " + "x" * MAX_VALUES_FILE_BYTES
    (error,) = collect_diagnostics(lambda: read_values([ConfigFile("values.yaml", text)]))
    assert error.message == "the file is larger than 5 MiB, the maximum"
