"""The process of the agent: log, signals and exit code."""

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
from genplug.cli.options import format_address
from genplug.cli.output import print_message
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.log_format import set_up_logging

_STARTUP_SECONDS = 5.0
"""Garbage collection is disabled for this time."""


def serve(arguments: argparse.Namespace) -> int:
    """Run an agent until SIGTERM or SIGINT, then end the process with its exit code."""
    is_text = arguments.log_format == "text" or (arguments.log_format == "auto" and sys.stderr.isatty())
    set_up_logging("text" if is_text else "json", arguments.log_level)
    os.umask(0o077)
    with open_root(arguments.root) as root:
        settings = Settings(
            config=tuple(map(Path, arguments.config)),
            root=root,
            kubelet_dir=Path(arguments.kubelet_dir),
            device_plugins_dir=Path(arguments.device_plugins_dir) if arguments.device_plugins_dir else None,
            pod_resources_dir=Path(arguments.pod_resources_dir) if arguments.pod_resources_dir else None,
            node_name=arguments.node_name,
            listen=arguments.listen,
            policy=arguments.policy,
            cdi_dir=arguments.cdi_dir,
            cdi_search_dirs=arguments.cdi_search_dirs,
        )
        # asyncio.run and the exit of the interpreter wait for all threads, and a thread may hang in a file operation.
        code = asyncio.new_event_loop().run_until_complete(_run(settings))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _start_garbage_collection() -> None:
    gc.collect()
    # Modules, configuration and inventory live long. Without them, a collection during an Allocate call is short.
    gc.freeze()
    gc.enable()


async def _run(settings: Settings) -> int:
    agent = Agent(settings)
    loop = asyncio.get_running_loop()
    loop.call_later(_STARTUP_SECONDS, _start_garbage_collection)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    try:
        await agent.run()
    except PluginDirReplacedError:
        return 1
    except OSError as error:
        address = format_address(settings.listen) if settings.listen else ""
        print_message("run", f"--listen {address}: {error.strerror}; use an address of this host and a free port")
        return 1
    return 0
