"""The command of another plugin, as ``python -m benchmarks --peer`` receives it."""

import sys

import pytest

from benchmarks.placeholders import fill_placeholders, split_command


def test_placeholders_are_replaced_in_every_argument() -> None:
    arguments = split_command(f"{sys.executable} --dir={{plugins}} '{{devices}}/a {{port}}'")
    filled = fill_placeholders(arguments, {"plugins": "/k/device-plugins", "devices": "/r/dev", "port": 8080})
    assert filled == [sys.executable, "--dir=/k/device-plugins", "/r/dev/a 8080"]


def test_braces_of_json_are_kept() -> None:
    arguments = split_command(f"""{sys.executable} '{{"name": "x", "paths": [{{"path": "{{glob}}"}}]}}'""")
    assert fill_placeholders(arguments, {"glob": "/dev/x*"})[1] == '{"name": "x", "paths": [{"path": "/dev/x*"}]}'


def test_value_with_braces_is_not_replaced_again() -> None:
    assert fill_placeholders(["{glob}"], {"glob": "{plugins}", "plugins": "wrong"}) == ["{plugins}"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (f"{sys.executable} {{plugin}}", r"expected a placeholder of \{plugins\}, .*, found \{plugin\}"),
        ("", "expected a program with its arguments, found nothing"),
        ("'open", "expected a program with its arguments, found .*: No closing quotation"),
        ("/does/not/exist --x", "expected a program, found '/does/not/exist', which is not an executable file"),
    ],
)
def test_command_that_cannot_start_is_refused_before_a_run(command: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        split_command(command)
