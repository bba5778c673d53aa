"""``genplug demo --script``, as the README shows it."""

import subprocess
import sys


def test_script_plays_every_step_and_succeeds() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "genplug", "demo", "--script"], capture_output=True, text=True, timeout=50, check=False
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("✓") == 9
    assert "did you mean 'glob'?" in played.stdout
    assert "/dev/ttyUSB" in played.stdout
    assert played.stdout.rstrip().endswith("Run `genplug demo` to try it by hand.")
    assert played.stderr == ""
