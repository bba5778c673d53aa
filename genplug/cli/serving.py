"""The process around an agent: log, signals, exit code."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from genplug.agent import Agent, Settings
from genplug.capture.archive import open_root
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.log_format import set_up_logging

_STARTED = 5.0
"""Seconds after which the process is taken to have started."""


def serve(arguments: argparse.Namespace) -> int:
    """Run an agent until SIGTERM or SIGINT, and return the exit code."""
    is_text = arguments.log_format == "text" or (arguments.log_format == "auto" and sys.stderr.isatty())
    set_up_logging("text" if is_text else "json", arguments.log_level)
    os.umask(0o077)
    with open_root(arguments.root) as root:
        settings = Settings(
            config=tuple(map(Path, arguments.config)),
            root=root,
            kubelet_dir=Path(arguments.kubelet_dir),
            node_name=arguments.node_name,
            listen=arguments.listen,
            policy=arguments.policy,
            cdi_dir=arguments.cdi_dir,
        )
        # Neither asyncio.run nor the interpreter's own end: both wait for worker threads, and one may hang in a dead
        # file system.
        code = asyncio.new_event_loop().run_until_complete(_run(settings))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _collect_garbage() -> None:
    gc.collect()
    # Modules, configuration and inventory are not looked at again: a collection in the midst of an Allocate is short.
    gc.freeze()
    gc.enable()


async def _run(settings: Settings) -> int:
    agent = Agent(settings)
    loop = asyncio.get_running_loop()
    loop.call_later(_STARTED, _collect_garbage)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    try:
        await agent.run()
    except PluginDirReplacedError:
        return 1
    except OSError as error:
        print(f"genplug run: --listen {settings.listen}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
