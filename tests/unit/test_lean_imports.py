"""Imports without parts of libraries: what is left out in a context, and that nothing is left out after it."""

import hashlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genplug.lean_imports import (
    hide_modules,
    hide_openssl_digests,
    postpone_patterns,
    replace_modules,
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the name of a package that writes a line for each module of it that is run."""
    monkeypatch.syspath_prepend(tmp_path)
    directory = tmp_path / "leantest" / "inner"
    directory.mkdir(parents=True)
    (tmp_path / "leantest" / "__init__.py").write_text("")
    (directory / "__init__.py").write_text("ran = True")
    (directory / "part.py").write_text("ran = True")
    yield "leantest.inner"
    for name in [name for name in sys.modules if name.startswith("leantest")]:
        del sys.modules[name]


def test_hidden_module_cannot_be_imported_in_the_context_only(package: str) -> None:
    with hide_modules(package), pytest.raises(ImportError):
        importlib.import_module(package)
    assert importlib.import_module(package).ran


def test_module_that_is_imported_already_is_not_hidden(package: str) -> None:
    importlib.import_module(package)
    with hide_modules(package):
        assert importlib.import_module(package).ran
    assert package in sys.modules


def test_replaced_package_is_not_run_and_keeps_its_modules(package: str) -> None:
    importlib.import_module("leantest")
    with replace_modules(package):
        assert importlib.import_module(f"{package}.part").ran
        assert sys.modules[package].ran is not True
    assert importlib.import_module(package).ran


def test_names_of_a_replaced_module_are_classes(package: str) -> None:
    importlib.import_module("leantest")
    with replace_modules(package):
        base = getattr(importlib.import_module(package), "Server")  # noqa: B009 - the module has no such name
        assert issubclass(type("Special", (base,), {}), base)
        with pytest.raises(AttributeError):
            _ = sys.modules[package].__file__


def test_metrics_are_rendered_without_servers_and_tls() -> None:
    script = (
        "import sys; from genplug.cli.run import import_serving; import_serving()\n"
        "from genplug.observe.http import StatusServer\n"
        "from genplug.observe.metrics import CollectorRegistry, Counter, choose_encoder\n"
        "Counter('x', 'help', registry=(registry := CollectorRegistry())).inc()\n"
        "for accept in ('', 'application/openmetrics-text; version=1.0.0'):\n"
        "    print(choose_encoder(accept)[0](registry).decode().splitlines()[2])\n"
        "print({'ssl', 'email', 'http.client', 'http.server', 'urllib.request'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["x_total 1.0", "x_total 1.0", "set()"]


def test_agent_without_claims_does_not_import_the_driver() -> None:
    modules = {
        "genplug.agent.claim_files",
        "genplug.agent.claim_ledger",
        "genplug.agent.claim_record_builder",
        "genplug.agent.claims",
        "genplug.allocation.claim_cdi",
        "genplug.allocation.claims",
        "genplug.kubelet.api.genplug_dra_v1_pb2",
        "genplug.kubelet.api.genplug_pluginregistration_v1_pb2",
        "genplug.kubelet.driver",
        "genplug.kubelet.driver_wire",
    }
    assert all(importlib.util.find_spec(name) for name in modules)
    script = (
        "import sys; from genplug.cli.run import import_serving; import_serving()\n"
        "import genplug.agent.agent\n"
        f"print({modules!r} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()"]


_PATTERNS = """\
pattern, invalid = re.compile("(a)b", re.IGNORECASE), re.compile("(")
class Example:
    pattern = re.compile("a")
"""
"""The body of a module."""


def _namespace() -> dict[str, Any]:
    return {"re": re}


def test_postponed_pattern_is_compiled_at_its_first_use() -> None:
    with postpone_patterns():
        exec(_PATTERNS, namespace := _namespace())
    pattern, invalid = namespace["pattern"], namespace["invalid"]
    assert type(namespace["Example"].pattern) is type(pattern) is not re.Pattern
    assert type(re.compile("c")) is re.Pattern
    assert (found := pattern.match("ABC")) is not None
    assert found[1] == "A"
    assert pattern.sub("-", "xab") == "x-"
    assert pattern.pattern == "(a)b"
    with pytest.raises(re.error, match="unterminated subpattern"):
        invalid.match("")


def test_pattern_that_a_function_compiles_is_not_postponed() -> None:
    def compile_pattern(text: str) -> object:
        return re.compile(text)

    with postpone_patterns():
        assert type(compile_pattern("a")) is re.Pattern
        with pytest.raises(re.error, match="unterminated subpattern"):
            compile_pattern("(")


def test_patterns_are_postponed_after_an_inner_context() -> None:
    with postpone_patterns():
        with postpone_patterns():
            pass
        exec(_PATTERNS, namespace := _namespace())
    assert type(namespace["pattern"]) is not re.Pattern


def test_paths_are_imported_without_modules_for_uris() -> None:
    script = (
        "import sys; from genplug.cli.options import Path; print({'ipaddress', 'urllib.parse'} & set(sys.modules))\n"
        "from urllib.parse import quote; print(Path('/a') / quote(' '))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "/a/%20"]


def test_messages_of_the_kubelet_are_imported_without_their_implementation_in_python() -> None:
    script = (
        "import sys; from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb\n"
        "print('google.protobuf.text_format' in sys.modules, repr(str(pb.Empty())), pb.Device(ID='a').ID)\n"
        "from google.protobuf import text_format\n"
        "print(text_format.MessageToString(pb.Device(ID='a')), end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False '' a", 'ID: "a"']


def test_digests_without_openssl_are_the_same() -> None:
    script = (
        "import sys; from genplug.lean_imports import hide_openssl_digests\n"
        "with hide_openssl_digests(): import hashlib, hmac\n"
        "assert '_hashlib' not in sys.modules\n"
        "print(hashlib.sha256(b'a').hexdigest(), hashlib.blake2b(b'a', digest_size=4).hexdigest())\n"
        "import _hashlib\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        hashlib.sha256(b"a").hexdigest(),
        hashlib.blake2b(b"a", digest_size=4).hexdigest(),
    ]
    assert not done.stderr


def test_digests_of_openssl_are_kept_if_python_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.lean_imports._BUILTIN_DIGESTS", ("_no_such_digest",))
    monkeypatch.delitem(sys.modules, "_hashlib", raising=False)
    with hide_openssl_digests():
        assert importlib.import_module("_hashlib")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", ["_datetime", "datetime True"]),
        ("import datetime", ["datetime", "datetime True"]),
        ("sys.modules['_datetime'] = None", ["datetime", "datetime True"]),
    ],
    ids=["builtin", "imported before", "without builtin"],
)
def test_datetime_in_the_context_is_the_builtin_one(before: str, expected: list[str]) -> None:
    script = (
        f"import sys; from genplug.lean_imports import use_builtin_datetime\n{before}\n"
        "with use_builtin_datetime(): import datetime as inner\n"
        "import datetime as outer\n"
        "print(inner.__name__)\n"
        "print(outer.__name__, inner.timedelta(1) == outer.timedelta(1))\n"
    )
    # Without the module site, which can import datetime for the packages of a virtual environment.
    command = [sys.executable, "-S", "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == expected
