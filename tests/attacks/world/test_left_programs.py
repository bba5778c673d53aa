"""Programs that the agent started do not outlive it, however it ends."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import start_agent
from tests.support.processes import wait_for_process_end
from tests.support.resources import build_x_config, write_policy


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_program_of_a_probe_ends_with_the_agent(
    node: FakeNode, kubelet: KubeletStandIn, tmp_path: Path, end: signal.Signals
) -> None:
    node.plug("/dev/x0")
    assert kubelet.is_running
    pipe, script = tmp_path / "pids", tmp_path / "check"
    os.mkfifo(pipe)
    script.write_text(f"#!/bin/sh\nsleep 60 &\necho $$ $! >{pipe}\nread line <{pipe}\n")
    script.chmod(0o755)
    policy = write_policy(node, f"exec: {{allow: ['{script}']}}\n")
    probe = f"{{exec: {{command: ['{script}']}}, timeoutSeconds: 50, periodSeconds: 60}}"
    node.write_config(build_x_config(f"health: {{probes: [{probe}]}}"))
    async with start_agent(node, "--policy", str(policy), stderr=asyncio.subprocess.DEVNULL) as agent:
        processes = (await asyncio.to_thread(pipe.read_text)).split()
        agent.send_signal(end)
        await agent.wait()
        for process in processes:
            await wait_for_process_end(int(process))
    assert len(processes) == 2
