"""``genplug demo --script``, as the README shows it."""

import signal
import subprocess
import sys
from pathlib import Path


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


def test_commands_that_the_demo_suggests_unplug_and_replug_a_device(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genplug", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, env={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout)
        assert any("healthy   /dev/ttyUSB1" in line for line in lines)
        unplug = next(line for line in lines if "unplug a device" in line).rsplit("  ", 1)[0]
        plug = next(line for line in lines if "plug it in again" in line).rsplit("  ", 1)[0]
        plan = next(line for line in lines if " plan --root " in line)
        subprocess.run(unplug, shell=True, check=True, timeout=10)
        assert any("UNHEALTHY   /dev/ttyUSB1" in line for line in lines)
        subprocess.run(plug, shell=True, check=True, timeout=10)
        assert any("healthy     /dev/ttyUSB1" in line or "healthy   /dev/ttyUSB1" in line for line in lines)
        planned = subprocess.run(plan, shell=True, check=True, capture_output=True, text=True, timeout=20)
        assert "SERIAL_PORTS" in planned.stdout
        demo.send_signal(signal.SIGINT)
        assert demo.wait(10) == 0
