"""A file that exceeds a limit is refused with the limit at its location, before it costs time and memory."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile
from genplug.config.load import load, load_text
from genplug.config.policy import decode_policy
from genplug.spec import limits
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from tests.support.large_files import FILES, HEAD, File

SECONDS = 3.0
"""Processor time in which a file is refused: three times the promised second, for a slow machine."""
MEMORY_MIB = 80
"""Memory that all files together use beyond a small file: twice the promised memory of one file."""
REFUSED = {
    "small_resources": limits.MAX_CONFIG_VALUES,
    "globs": limits.MAX_CONFIG_VALUES,
    "alternatives": limits.MAX_PATTERNS,
    "defaults_in_every_resource": limits.MAX_CONFIG_VALUES,
    "long_regex": limits.MAX_REGEX_CHARACTERS,
    "deep_block": limits.MAX_DEPTH,
    "aliases": limits.MAX_CONFIG_VALUES,
    "flow_scalars": limits.MAX_CONFIG_VALUES,
}
"""The limit that a file of 1 MiB exceeds."""
FEWER = {
    ("small_resources", 301): limits.MAX_RESOURCES,
    ("resource_aliases", 301): limits.MAX_RESOURCES,
    ("tokens", 6): limits.MAX_TOKENS,
    ("probes", 65): limits.MAX_PROBES,
    ("nodes", 10_001): limits.MAX_PATTERNS,
    ("globs", 10_001): limits.MAX_PATTERNS,
    ("name_globs", 11): limits.MAX_PATTERNS,
    ("alternatives", 11): limits.MAX_PATTERNS,
    ("wrong_keys", 15_000): limits.MAX_DIAGNOSTICS,
    ("wrong_values", 5_000): limits.MAX_DIAGNOSTICS,
    ("wrong_templates", 15_000): limits.MAX_DIAGNOSTICS,
    ("mounts", 5_000): limits.MAX_DIAGNOSTICS,
    ("duplicate_keys", 5_000): limits.MAX_DIAGNOSTICS,
}
"""The limit that a file with this number of parts exceeds."""


def find_diagnostics(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(text, "c.yaml")
    return caught.value.diagnostics


@pytest.mark.parametrize("name", FILES)
def test_file_of_1_mib_takes_no_more_than_a_second(name: str) -> None:
    text = FILES[name]().fill()
    started = time.process_time()
    with suppress(ConfigInvalidError):
        load_text(text, "c.yaml")
    assert time.process_time() - started < SECONDS


def test_files_of_1_mib_take_little_memory() -> None:
    code = (
        "import sys\n"
        "from genplug.config.diagnostics import ConfigInvalidError\n"
        "from genplug.config.load import load_text\n"
        "from tests.support.large_files import FILES\n"
        "def peak(): return int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) / 1024\n"
        "def read(text):\n"
        "    try: load_text(text, 'c.yaml')\n"
        "    except ConfigInvalidError: pass\n"
        "texts = [made().fill() for made in FILES.values()]\n"
        "read(FILES['wrong_values']().fill(max_parts=3)); read(FILES['regexes']().fill(max_parts=3))\n"
        "before = peak()\n"
        "for text in texts: read(text)\n"
        "print(peak() - before)\n"
    )
    root = Path(__file__).parents[3]
    output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert float(output) < MEMORY_MIB


@pytest.mark.parametrize("name", REFUSED)
def test_file_of_1_mib_is_refused_with_the_limit(name: str) -> None:
    diagnostics = find_diagnostics(FILES[name]().fill())
    assert any(str(REFUSED[name]) in diagnostic.message for diagnostic in diagnostics)
    assert all(diagnostic.location.line > 1 for diagnostic in diagnostics)


@pytest.mark.parametrize(("name", "count"), FEWER)
def test_file_is_refused_with_the_limit_that_it_exceeds(name: str, count: int) -> None:
    (refused,) = [
        diagnostic
        for diagnostic in find_diagnostics(FILES[name]().fill(max_parts=count))
        if diagnostic.code is ErrorCode.LIMIT
    ]
    assert str(FEWER[name, count]) in refused.message
    assert refused.hint
    assert refused.location.line > 2


@pytest.mark.parametrize(
    ("name", "count"), [("small_resources", 300), ("resource_aliases", 299), ("tokens", 5), ("alternatives", 10)]
)
def test_file_at_a_limit_is_valid(name: str, count: int) -> None:
    load_text(FILES[name]().fill(max_parts=count), "c.yaml")


def test_regexes_are_limited_in_number_and_instructions() -> None:
    devices = "    devices: [{glob: /dev/x}]\n"

    def regexes(expression: str, count: int) -> str:
        resources = range(count // 10)
        probes = (
            "      - file: {path: /sys/x, matches: '" + expression.format(number) + "'}\n" for number in range(10)
        )
        health = "    health:\n      probes:\n" + "".join(probes)
        return File(
            HEAD + "resources:\n", (f"  a.io/r{n}:\n{devices}{health.replace('N', f'n{n}')}" for n in resources)
        ).fill()

    (refused,) = find_diagnostics(regexes("N{}", 510))
    assert str(limits.MAX_REGEXES) in refused.message
    (refused,) = find_diagnostics(regexes("N{}(b{{100}}){{10}}", 200))
    assert str(limits.MAX_REGEX_INSTRUCTIONS) in refused.message
    # A pattern that repeats is compiled once.
    load_text(regexes("a(b{{100}}){{10}}", 600), "c.yaml")


@pytest.mark.parametrize("name", ["*a" * 500, "[a-z]" * 500, "?{a,b}" * 5])
@pytest.mark.parametrize(
    "key", ["glob: [/dev/x, GLOBS]", "glob: /dev/x, exclude: [GLOBS]", "glob: /dev/x, where: {name: [GLOBS]}"]
)
def test_globs_with_many_wildcards_are_refused_before_they_are_compiled(name: str, key: str) -> None:
    def render(count: int) -> str:
        globs = ", ".join(f"'/dev/{name}{number}'" for number in range(count))
        return f"{HEAD}resources:\n  a.io/x:\n    devices: [{{{key.replace('GLOBS', globs)}}}]\n"

    started = time.process_time()
    (refused,) = find_diagnostics(render(170))
    assert refused.message.startswith(f"the configuration has more than {limits.MAX_WILDCARDS} wildcards in its globs")
    assert time.process_time() - started < SECONDS
    load_text(render(30), "c.yaml")


def test_policy_is_refused_with_the_limit_that_it_exceeds() -> None:
    globs = "".join(f"  - '/dev/x{number}-{{0..999}}'\n" for number in range(11))
    text = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\ndevices:\n  allow:\n" + globs
    with pytest.raises(ConfigInvalidError) as caught:
        decode_policy(ConfigFile("policy.yaml", text))
    assert str(limits.MAX_PATTERNS) in caught.value.diagnostics[0].message
    many = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n" + "".join(f"a{n}: 1\n" for n in range(5000))
    with pytest.raises(ConfigInvalidError) as caught:
        decode_policy(ConfigFile("policy.yaml", many))
    assert len(caught.value.diagnostics) == limits.MAX_DIAGNOSTICS + 1


def test_error_of_defaults_counts_once() -> None:
    defaults = "defaults:\n  allocate: {env: {A: '${unknown}'}}\n"
    text = FILES["small_resources"]().fill(max_parts=200).replace("resources:", defaults + "resources:", 1)
    (diagnostic,) = find_diagnostics(text)
    assert diagnostic.code is ErrorCode.UNKNOWN_ATTRIBUTE


def test_number_of_files_is_limited(tmp_path: Path) -> None:
    for number in range(limits.MAX_FILES + 1):
        (tmp_path / f"{number:03}.yaml").write_text(HEAD + "resources: {}\n")
    with pytest.raises(ConfigInvalidError) as caught:
        load([tmp_path])
    (diagnostic,) = [found for found in caught.value.diagnostics if found.code is ErrorCode.LIMIT]
    assert str(limits.MAX_FILES) in diagnostic.message
    assert diagnostic.location.file == str(tmp_path / "064.yaml")
    (tmp_path / "000.yaml").unlink()
    load([tmp_path])


def test_size_of_all_files_is_limited(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_text(HEAD + "resources: {}\n#" + "x" * (limits.MAX_FILE_BYTES - 200) + "\n")
    with pytest.raises(ConfigInvalidError) as caught:
        load([tmp_path])
    (diagnostic,) = [found for found in caught.value.diagnostics if found.code is ErrorCode.LIMIT]
    assert f"{limits.MAX_CONFIG_BYTES >> 20} MiB" in diagnostic.message
    assert diagnostic.location.file == str(tmp_path / "4.yaml")


def test_values_of_all_files_are_limited(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.yaml").write_text(FILES["environment"]().fill(max_parts=9_000))
    with pytest.raises(ConfigInvalidError) as caught:
        load([tmp_path])
    (diagnostic,) = caught.value.diagnostics
    assert str(limits.MAX_CONFIG_VALUES) in diagnostic.message
    assert diagnostic.location.file == str(tmp_path / "2.yaml")
