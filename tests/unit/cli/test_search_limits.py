"""Commands that scan report a search that exceeds a limit as an error, and not as a traceback."""

from pathlib import Path

import pytest

from genplug.cli.main import main

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: '/sys/loop/*/*/*/*/*/*/zz'}]}
"""


@pytest.mark.parametrize("command", [["plan"], ["capture", "-o", "-"]], ids=["plan", "capture"])
def test_search_over_a_limit_is_an_error_with_the_limit(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    loop = tmp_path / "root/sys/loop"
    loop.mkdir(parents=True)
    for number in range(60):
        (loop / f"l{number}").symlink_to(".")
    (tmp_path / "config.yaml").write_text(CONFIG)
    arguments = ["--config", str(tmp_path / "config.yaml"), "--root", str(tmp_path / "root")]
    assert main([*command, *arguments]) == 1
    errors = capsys.readouterr().err
    assert "examines more than 200000 directory entries" in errors
    assert "Traceback" not in errors
