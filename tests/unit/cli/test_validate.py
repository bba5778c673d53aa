"""``genplug validate`` and ``genplug schema``: their output and their exit codes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from genplug.cli.main import main
from genplug.cli.schema import SCHEMAS
from genplug.config.schema import SCHEMA
from tests.support.configs import CONFIG_HEADER
from tests.support.pages import ROOT

VALID = CONFIG_HEADER + "resources:\n  example.com/x: {devices: [{glob: /dev/x*}]}\n"
INVALID = CONFIG_HEADER + "resources:\n  example.com/x: {devces: [{glob: /dev/x*}]}\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest(text: str) -> str:
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: genplug}}\ndata:\n  genplug.yaml: |\n{indented}"


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_valid_file_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    assert main(["validate", "a.yaml"]) == 0
    assert capsys.readouterr() == ("a.yaml: valid, 1 file, 1 resource\n", "")


def test_quiet_prints_nothing_for_a_valid_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    assert main(["validate", "-q", "a.yaml"]) == 0
    assert capsys.readouterr() == ("", "")


def test_errors_are_printed_to_stderr_with_their_number_and_exit_78(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(INVALID)
    assert main(["validate", "-q", "a.yaml"]) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "a.yaml:4:19: error[GP006]: unknown key 'devces'  [resources.example.com/x]",
        "    4 |   example.com/x: {devces: [{glob: /dev/x*}]}",
        "      |                   ^^^^^^",
        "      = help: did you mean 'devices'?",
        "",
        "1 error",
    ]


def test_files_and_directories_are_merged(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    Path("c").mkdir()
    Path("c/b.json").write_text('{"resources": {"example.com/y": {"devices": [{"glob": "/dev/y"}]}}}')
    assert main(["validate", "a.yaml", "c"]) == 0
    assert capsys.readouterr().out == "a.yaml, c/b.json: valid, 2 files, 2 resources\n"


def test_file_of_each_node_is_merged_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    Path("node.w1.yaml").write_text("resources: {example.com/x: null}\n")
    assert main(["validate", "."]) == 0
    assert capsys.readouterr().out == (
        "a.yaml: valid, 1 file, 1 resource\na.yaml, node.w1.yaml: valid, 2 files, 0 resources\n"
    )
    Path("node.w2.yaml").write_text("resources: {example.com/x: {replcas: 2}}\n")
    Path("a.yaml").write_text(VALID.replace("/dev/x", "dev/x"))
    assert main(["validate", "."]) == 78
    printed = capsys.readouterr().err
    # An error in a file for all nodes is printed once.
    assert [line.split(": error")[0] for line in printed.splitlines() if ": error" in line] == [
        "a.yaml:4:36",
        "node.w2.yaml:1:29",
    ]


def test_node_name_selects_the_file_of_that_node(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    Path("node.w1.yaml").write_text("resources: {example.com/x: {replicas: 2}}\n")
    Path("node.w2.yaml").write_text("wrong")
    assert main(["validate", "--node-name", "w1", "."]) == 0
    assert capsys.readouterr().out == "a.yaml, node.w1.yaml: valid, 2 files, 1 resource\n"
    assert main(["validate", "--node-name", "w2", "."]) == 78


def test_standard_input_can_be_a_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, VALID.encode())
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "<stdin>: valid, 1 file, 1 resource\n"
    feed(monkeypatch, INVALID.encode())
    assert main(["validate", "-"]) == 78
    assert "<stdin>:4:19: error[GP006]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "1:1: error[GP004]"), (b"a: \xff", "1:4: error[GP001]"), (b"a" * (1 << 21), "1:1: error[GP001]")],
)
def test_unreadable_input_is_an_error_without_a_traceback(
    content: bytes, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, content)
    assert main(["validate", "-"]) == 78
    assert capsys.readouterr().err.startswith(f"<stdin>:{expected}")


def test_errors_in_a_rendered_chart_have_their_location_in_the_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, f"kind: ServiceAccount\n---\n{manifest(VALID)}".encode())
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "<stdin>[genplug/genplug.yaml]: valid, 1 file, 1 resource\n"
    feed(monkeypatch, f"kind: ServiceAccount\n---\n{manifest(INVALID)}".encode())
    assert main(["validate", "-"]) == 78
    assert "<stdin>:11:23: error[GP006]: unknown key 'devces'" in capsys.readouterr().err


def test_key_of_each_node_in_a_manifest_is_merged_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    own = "  node.w1.yaml: 'resources: {example.com/x: {replicas: 0}}'\n"
    Path("cm.yaml").write_text(manifest(VALID) + own)
    assert main(["validate", "cm.yaml"]) == 78
    assert "cm.yaml:10:56: error[GP009]" in capsys.readouterr().err
    assert main(["validate", "--node-name", "w2", "cm.yaml"]) == 0


def test_manifest_is_checked_separately_from_other_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(VALID)
    Path("cm.yaml").write_text(manifest(VALID))
    Path("wrong.yaml").write_text("kind: ConfigMap\n")
    assert main(["validate", "a.yaml", "cm.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cm.yaml[genplug/genplug.yaml]: valid, 1 file, 1 resource",
        "a.yaml: valid, 1 file, 1 resource",
    ]
    assert main(["validate", "a.yaml", "wrong.yaml"]) == 78
    assert "wrong.yaml:1:1: error[GP004]: no ConfigMap in the file contains a configuration" in capsys.readouterr().err


def test_json_output_is_printed_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(INVALID)
    assert main(["validate", "a.yaml", "-o", "json"]) == 78
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Validation",
        "valid": False,
        "configurations": [],
        "problems": [
            {
                "code": "GP006",
                "severity": "error",
                "file": "a.yaml",
                "line": 4,
                "column": 19,
                "width": 6,
                "path": "resources.example.com/x",
                "message": "unknown key 'devces'",
                "first": None,
                "expected": "",
                "hint": "did you mean 'devices'?",
                "url": "https://github.com/genplug/genplug/blob/main/docs/reference/errors.md#gp006-unknown-key",
            }
        ],
    }
    Path("a.yaml").write_text(VALID + "  example.com/x: {}\n")
    assert main(["validate", "a.yaml", "-o", "json"]) == 78
    (diagnostic,) = json.loads(capsys.readouterr().out)["problems"]
    assert (diagnostic["line"], diagnostic["first"]) == (5, {"file": "a.yaml", "line": 4, "column": 3})
    Path("a.yaml").write_text(VALID)
    assert main(["validate", "a.yaml", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (configuration,) = document["configurations"]
    assert (document["valid"], document["problems"]) == (True, [])
    assert (configuration["files"], configuration["resources"]) == (["a.yaml"], ["example.com/x"])
    assert len(configuration["sha256"]) == 64


def test_missing_path_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "missing.yaml"]) == 78
    assert "missing.yaml:1:1: error[GP001]" in capsys.readouterr().err


def test_path_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["validate"])
    assert caught.value.code == 2
    assert "PATH" in capsys.readouterr().err


def test_valid_file_is_checked_without_large_modules(directory: Path) -> None:
    (directory / "a.yaml").write_text(VALID)
    script = "import sys; from genplug.cli.main import main; main(['validate', 'a.yaml']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    summary, modules = done.stdout.splitlines()
    assert summary == "a.yaml: valid, 1 file, 1 resource"
    assert "genplug.config.load" in modules.split()
    heavy = {
        "grpc",
        "google.protobuf",
        "asyncio",
        "jsonschema",
        "re2",
        "bracex",
        "_hashlib",
        "difflib",
        "shutil",
        "inspect",
    }
    assert not heavy & set(modules.split())


def test_valid_file_is_parsed_without_compiling_the_patterns_of_the_yaml_library(directory: Path) -> None:
    (directory / "a.yaml").write_text(VALID)
    script = (
        "from genplug.cli.main import main; main(['validate', '-q', 'a.yaml'])\n"
        "import yaml; print('search' in vars(yaml.reader.Reader.NON_PRINTABLE))\n"
        "yaml.reader.Reader.NON_PRINTABLE.search('a'); print('search' in vars(yaml.reader.Reader.NON_PRINTABLE))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def list_imports_of_validate(directory: Path, source: str, resource: str = "") -> set[str]:
    """Validate a configuration in a new interpreter, and return the modules that this imports."""
    config = f"{resource}devices: [{{{source}glob: /dev/x*}}], allocate: {{env: {{X: '${{path}}'}}}}"
    (directory / "a.yaml").write_text(f"{CONFIG_HEADER}resources:\n  example.com/x: {{{config}}}\n")
    # Modules that the interpreter imports first, for example to measure coverage, do not count.
    script = (
        "import sys; before = set(sys.modules); from genplug.cli.main import main; "
        "status = main(['validate', '-q', 'a.yaml']); print(*set(sys.modules) - before); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("source", "expected"), [("", set()), ("where: {pci.vendor: '0x10de'}, ", {"genplug.hardware.attributes.pci"})]
)
def test_configuration_without_probes_imports_neither_probe_kinds_nor_what_reads_the_host(
    directory: Path, source: str, expected: set[str]
) -> None:
    imported = list_imports_of_validate(directory, source)
    assert {name for name in imported if name == "genplug.hardware.attributes.pci"} == expected
    assert not [name for name in imported if name.startswith("genplug.health.probes.")]
    assert imported.isdisjoint({"genplug.hardware.host", "genplug.health.probe_kind", "mmap", "socket", "subprocess"})


def test_configuration_with_a_probe_imports_only_its_kind(directory: Path) -> None:
    imported = list_imports_of_validate(directory, "", "health: {probes: [{uevent: {fail: '^ERROR='}}]}, ")
    kinds = [name for name in imported if name.startswith("genplug.health.probes.")]
    assert kinds == ["genplug.health.probes.uevent"]


@pytest.mark.parametrize(("arguments", "file"), [([], SCHEMA), *(([name], file) for name, file in SCHEMAS.items())])
def test_schema_is_printed_verbatim(arguments: list[str], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", *arguments]) == 0
    assert capsys.readouterr() == ((ROOT / "schemas" / file).read_text(), "")


def test_schema_can_print_every_schema_of_the_project() -> None:
    assert sorted(SCHEMAS.values()) == sorted(path.name for path in (ROOT / "schemas").iterdir())


@pytest.mark.parametrize("command", ["validate", "schema"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"genplug {command}" in capsys.readouterr().out.partition("example")[2]
