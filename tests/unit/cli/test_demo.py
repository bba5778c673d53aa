"""The demo's script is the README's promise: it plays through, and shows what it says."""

import subprocess
import sys


def test_the_script_plays_through() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "genplug", "demo", "--script"], capture_output=True, text=True, timeout=50, check=False
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("✓") == 9
    assert "did you mean 'glob'?" in played.stdout
    assert "/dev/ttyUSB" in played.stdout
    assert played.stdout.rstrip().endswith("`genplug demo` lets you try it by hand.")
    assert played.stderr == ""
