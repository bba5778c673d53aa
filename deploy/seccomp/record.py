"""Record the system calls of genplug, and write the seccomp profile and the filter of the systemd unit.

``python deploy/seccomp/record.py`` writes ``genplug.json`` and the ``SystemCallFilter=`` of the unit from
``recorded.json`` and ``margin.json``; ``--check`` reports differences instead. With ``--record``, it runs genplug under
strace first and writes ``recorded.json``; that needs root, strace and the development environment.

``recorded.json`` has the system calls of each scenario. ``margin.json`` has the calls that a recording on one machine
cannot contain, in groups with a reason, and the calls that are denied with EPERM. Every other call fails with ENOSYS,
so that a C library that tries a call of a newer kernel falls back to an older call.
"""
# ruff: noqa: INP001 - a script next to the files it generates, not a package

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORDED, MARGIN, PROFILE = (HERE / name for name in ("recorded.json", "margin.json", "genplug.json"))
UNIT = ROOT / "deploy/systemd/genplug.service"
FIGURES = ROOT / "docs/explanation/proof/seccomp.json"
EPERM, ENOSYS = 1, 38
ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_UNIT_FILTER = re.compile(r"^SystemCallFilter=.*\n", re.MULTILINE)
_LINE_COLUMNS = 110
"""Columns of a line of the unit: systemd joins the lines of a setting."""
_STRACE = ("strace", "-D", "-f", "-qq", "-c", "-U", "name", "-o")
"""strace as a child of the traced program, which then gets the signals; the summary has names only."""
_SUMMARY_SECONDS = 30.0


def list_allowed(recorded: Mapping[str, Any], margin: Mapping[str, Any]) -> list[str]:
    """Return the system calls that the profile allows without a condition, sorted."""
    names = {name for scenario in recorded["scenarios"].values() for name in scenario}
    names.update(name for group in margin["groups"] for name in group["names"])
    conditional = {name for rule in margin["conditional"] for name in rule["names"]}
    return sorted(names - conditional)


def build_profile(recorded: Mapping[str, Any], margin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile in the format of the OCI runtime specification, which containerd, CRI-O and podman read."""
    conditional = [
        {"names": rule["names"], "action": rule["action"]}
        | ({"errnoRet": rule["errnoRet"]} if "errnoRet" in rule else {})
        | ({"args": rule["args"]} if "args" in rule else {})
        for rule in margin["conditional"]
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": list(ARCHITECTURES),
        "syscalls": [
            {"names": list_allowed(recorded, margin), "action": "SCMP_ACT_ALLOW"},
            *conditional,
            {"names": sorted(margin["denied"]), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
        ],
    }


def build_unit(unit: str, recorded: Mapping[str, Any], margin: Mapping[str, Any]) -> str:
    """Return the text of the systemd unit with the calls of the profile.

    systemd cannot compare arguments: ``RestrictNamespaces=`` and ``RestrictAddressFamilies=`` limit the calls with a
    condition. clone3 is among them, because the C library does not fall back to clone after the EPERM of the unit.
    """
    conditional = {name for rule in margin["conditional"] for name in rule["names"]}
    lines, line = [], "SystemCallFilter="
    for name in sorted({*list_allowed(recorded, margin), *conditional}):
        if len(line) + len(name) + 1 > _LINE_COLUMNS:
            lines.append(line.rstrip())
            line = "SystemCallFilter="
        line += f"{name} "
    lines.append(line.rstrip())
    start = _UNIT_FILTER.search(unit)
    position = start.start() if start else len(unit)
    rest = _UNIT_FILTER.sub("", unit)
    return rest[:position] + "".join(f"{text}\n" for text in lines) + rest[position:]


def build_figures(recorded: Mapping[str, Any], margin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of system calls for the documentation."""
    agent = set(recorded["scenarios"]["agent"])
    others = {name for scenario in recorded["scenarios"].values() for name in scenario} - agent
    allowed = list_allowed(recorded, margin)
    conditional = {
        name for rule in margin["conditional"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]
    }
    rows = {
        "recorded in the agent": agent,
        "recorded only in commands": others,
        "allowed without a condition": allowed,
        "allowed with a condition": conditional,
        "denied with EPERM": margin["denied"],
    }
    return {
        "conditions": recorded["conditions"],
        "columns": ["System calls", "Number"],
        "rows": [[name, str(len(calls))] for name, calls in rows.items()],
    }


def build_files() -> dict[Path, str]:
    """Return the text of the generated files."""
    recorded, margin = (json.loads(path.read_text()) for path in (RECORDED, MARGIN))
    return {
        PROFILE: json.dumps(build_profile(recorded, margin), indent=2) + "\n",
        FIGURES: json.dumps(build_figures(recorded, margin), indent=2) + "\n",
        UNIT: build_unit(UNIT.read_text(), recorded, margin),
    }


class TracedRunner:
    """Runs genplug on this machine under strace, and collects the system calls of each command."""

    program = sys.executable
    commands: tuple[str, ...] = ("status", "plan", "doctor", "capture", "validate", "audit", "bundle", "reload")

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self.scenarios: dict[str, list[str]] = {}
        self._directory = directory
        self._paths: dict[str, str] = {}
        self._kubelet_dir = ""

    @contextlib.asynccontextmanager
    async def start_agent(
        self, arguments: tuple[str, ...], directories: Mapping[str, tuple[Path, str]]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the agent under strace; the paths of the container are replaced by those of this machine."""
        self._paths = {path: str(source) for path, (source, _) in directories.items()}
        self._kubelet_dir = str(Path(self._paths["/var/lib/kubelet/device-plugins"]).parent)
        command = (*arguments, "--kubelet-dir", "/var/lib/kubelet")
        async with self._trace("agent", command) as process:
            yield process

    async def run_command(self, *arguments: str) -> tuple[int, str]:
        """Run a command under strace."""
        options = ("--kubelet-dir", "/var/lib/kubelet") if arguments[0] in ("doctor", "bundle", "reload") else ()
        async with self._trace(arguments[0], (*arguments, *options), output=asyncio.subprocess.PIPE) as process:
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _trace(
        self, name: str, arguments: tuple[str, ...], output: int | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        summary = self._directory / f"{name}.txt"
        command = [sys.executable, "-m", "genplug", *map(self._translate, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            *_STRACE,
            summary,
            *command,
            env=environment,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT if output else None,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            self.scenarios[name] = sorted(await asyncio.to_thread(read_summary, summary))

    def _translate(self, argument: str) -> str:
        if argument == "/var/lib/kubelet":
            return self._kubelet_dir
        for path, source in self._paths.items():
            if argument == path or argument.startswith(f"{path}/"):
                return f"{source}{argument.removeprefix(path)}"
        return argument


def read_summary(path: Path) -> set[str]:
    """Return the names in a summary of strace, which strace writes after the traced program has ended.

    Raises:
        TimeoutError: strace wrote no summary in time.
    """
    deadline = time.monotonic() + _SUMMARY_SECONDS
    while time.monotonic() < deadline:
        lines = path.read_text().split() if path.exists() else []
        if lines and lines[-1] == "total":
            return {line for line in lines if re.fullmatch(r"[a-z][a-z0-9_]*", line)} - {"syscall", "total"}
        time.sleep(0.1)
    raise TimeoutError(f"strace wrote no summary to {path} within {_SUMMARY_SECONDS:g} s")


async def record() -> dict[str, Any]:
    """Use every function of the agent and return the system calls, with the conditions of the recording."""
    sys.path.insert(0, str(ROOT))
    from genplug.testing.node.fake_node import FakeNode  # noqa: PLC0415 - only a recording needs the environment
    from tests.support.agent_functions import find_free_port, use_every_function  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as directory:
        runner = TracedRunner(Path(directory), find_free_port())
        async with FakeNode() as node:
            await node.kubelet.start()
            node.write_kernel_log("")
            await use_every_function(node, node.kubelet, runner)
        await runner.run_command("demo", "--script")
    conditions = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": platform.release().split("-")[0],
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }
    return {"conditions": conditions, "scenarios": runner.scenarios}


def list_stale(files: Mapping[Path, str]) -> Iterator[Path]:
    """Yield the files whose content differs."""
    yield from (path for path, text in files.items() if not path.exists() or path.read_text() != text)


def main() -> int:
    """Record, write or check, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="run genplug under strace and write recorded.json")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    arguments = parser.parse_args()
    if arguments.record:
        if shutil.which("strace") is None or os.geteuid() != 0:
            parser.error("--record needs root and strace: on Debian, apt-get install strace")
        RECORDED.write_text(json.dumps(asyncio.run(record()), indent=2) + "\n")
    files = build_files()
    stale = list(list_stale(files))
    for path in stale:
        state = "is out of date: run python deploy/seccomp/record.py" if arguments.check else "written"
        print(f"{path.relative_to(ROOT)} {state}")
        if not arguments.check:
            path.write_text(files[path])
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
