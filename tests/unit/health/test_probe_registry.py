"""The table of probe kinds, the modules, the schema, the reference and the tests agree: each has every kind."""

import importlib
import json
import pkgutil
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genplug.config.load import load_text
from genplug.config.schema import schema_text
from genplug.hardware.file_tree import Access
from genplug.hardware.host import STAND_INS_MARKER, Host
from genplug.health import probes
from genplug.health.probe_kind import Effect, ProbeKind
from genplug.health.probes import PROBES, READ_KINDS, kind_of
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.spec.globs import Glob
from genplug.spec.policy import Policy
from genplug.spec.probes import Check
from tests.support.configs import CONFIG_HEADER
from tests.support.probes import make_device

REPOSITORY = Path(__file__).parents[3]
SCHEMA: Mapping[str, Any] = json.loads(schema_text())["definitions"]["probe"]
ALTERNATIVES = {"equalsFile", "minFile", "maxFile", "exists"}
"""Options of ``file`` that exclude others."""
SHARED = {"name", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold", "onError", "severity"}
"""The keys of a probe that are not its kind."""
MODULES = {
    module.name: importlib.import_module(f"{probes.__name__}.{module.name}")
    for module in pkgutil.iter_modules(probes.__path__)
}
KINDS = [pytest.param(kind, id=kind.name) for kind in PROBES.values()]
POLLED = [pytest.param(kind, id=kind.name) for kind in PROBES.values() if kind.polling is not None]
EVERYTHING_ALLOWED = Policy(unix_sockets=(Glob.parse("/**"),), programs=(Glob.parse("/**"),), open_probe=True)
ANY_VALUE = {"sysfs": ("/sys/devices/x",), "pci.address": ("0000:3b:00.0",), "sriov.pf": ("0000:3b:00.0",)}


def examples(kind: ProbeKind) -> list[dict[str, Any]]:
    """The examples in the schema: those of the kind, and those of all its keys together.

    Of keys that exclude each other, the last example has those of :data:`ALTERNATIVES`, with the path.
    """
    branch = SCHEMA["properties"][kind.name]
    options = {key: schema["examples"][0] for key, schema in branch["properties"].items()}
    alternatives = {key: value for key, value in options.items() if key in ALTERNATIVES}
    together = {key: value for key, value in options.items() if key not in ALTERNATIVES}
    rest = [{"path": options["path"], key: value} for key, value in alternatives.items()]
    return [*branch["examples"], together, *rest]


def decode(kind: ProbeKind, options: Mapping[str, Any]) -> Check:
    """Return the check of a probe in a configuration."""
    health = {"probes": [{kind.name: options}]}
    attributes = {"uuid": {"path": "/sys/x"}}
    source = {"glob": "/dev/x*", "attributes": attributes}
    resource = json.dumps({"devices": [source], "health": health})
    (spec,) = (
        load_text(f"{CONFIG_HEADER}resources: {{a.io/x: {resource}}}", "c.yaml", EVERYTHING_ALLOWED)
        .resources["a.io/x"]
        .health.probes
    )
    return spec.check


def test_every_module_describes_a_kind_in_the_table() -> None:
    assert {name: module.KIND.name for name, module in MODULES.items()} == {
        name: kind.name for name, kind in ((module_name(kind), kind) for kind in PROBES.values())
    }
    assert {module.KIND for module in MODULES.values()} == set(PROBES.values())


def test_workers_for_reads_import_every_kind_that_is_not_a_call() -> None:
    effects = {name: kind.polling.effect for name, kind in PROBES.items() if kind.polling is not None}
    assert set(READ_KINDS) == {name for name, effect in effects.items() if effect is not Effect.CALL}


def module_name(kind: ProbeKind) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.name).lower()


def test_every_kind_has_its_own_options() -> None:
    assert len({kind.spec for kind in PROBES.values()}) == len(PROBES)
    assert all(kind.spec.__module__ == f"{probes.__name__}.{module_name(kind)}" for kind in PROBES.values())


def test_schema_has_every_kind() -> None:
    assert SCHEMA["properties"].keys() - SHARED == PROBES.keys()
    assert [branch["required"] for branch in SCHEMA["oneOf"]] == [
        [name] for name in SCHEMA["properties"] if name in PROBES
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_reference_has_section_of_kind(kind: ProbeKind) -> None:
    page = (REPOSITORY / "docs/reference/health.md").read_text()
    assert re.search(rf"^## `{kind.name}` probes$", page, re.MULTILINE), f"expected '## `{kind.name}` probes'"


@pytest.mark.parametrize("kind", KINDS)
def test_kind_has_test_file(kind: ProbeKind) -> None:
    file = Path(__file__).parent / "probes" / f"test_{module_name(kind)}.py"
    assert f"genplug.health.probes.{module_name(kind)} import" in file.read_text()


def test_kinds_are_independent_by_contract() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    modules = [each["modules"] for each in contracts if each["type"] == "independence"]
    assert [f"{probes.__name__}.*"] in modules


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_schema_are_decoded_and_bound(kind: ProbeKind) -> None:
    for options in examples(kind):
        check = decode(kind, options)
        assert kind_of(check) is kind
        values = dict.fromkeys(check.required_attributes, ("x",)) | ANY_VALUE
        device = make_device(values)
        if kind.polling is not None:
            request = kind.polling.request(check, device)
            assert request[0] == kind.name
            assert all(isinstance(part, str) for part in request)
        else:
            assert kind.listening is not None
            assert kind.listening.bind(check, device) is not None


@pytest.mark.parametrize("kind", POLLED)
def test_kind_that_reads_files_is_captured(kind: ProbeKind, tmp_path: Path) -> None:
    """An archive contains the files that a run reads only if the kind is declared as a kind that only reads."""
    assert kind.polling is not None
    (tmp_path / STAND_INS_MARKER).touch()
    accesses: list[Access] = []
    host = Host.at(tmp_path, recorder=lambda access, _path: accesses.append(access))
    for options in examples(kind):
        check = decode(kind, options)
        request = kind.polling.request(check, make_device(dict.fromkeys(check.required_attributes, ("x",)) | ANY_VALUE))
        for part in request[1:]:
            # Every file that a request names exists, and is what it would be on a node.
            if part.startswith("/"):
                path = tmp_path / part.lstrip("/").replace("*", "0")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        for name in ("config", "power/runtime_status", "current_link_width"):
            path = tmp_path / "sys/bus/pci/devices/0000:3b:00.0" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        run_request(request, CachedFileReader(host), 0.2)
    assert (kind.polling.effect is Effect.READ) == bool({Access.READ, Access.LIST}.intersection(accesses))
