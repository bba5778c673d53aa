"""``genplug completion``: print a script of ``completions/``, which ``docs/generate_completions.py`` writes."""

import argparse
from pathlib import Path

SCRIPTS = {"bash": "genplug.bash", "zsh": "genplug.zsh", "fish": "genplug.fish"}
"""The file of each shell in ``completions/``."""
DESCRIPTION = """\
Print a script that completes the commands, options, allowed values and file names of genplug when you press Tab.
"""
EPILOG = """\
examples:
  source <(genplug completion bash)                                  in ~/.bashrc
  eval "$(genplug completion zsh)"                                   in ~/.zshrc, after compinit
  genplug completion fish > ~/.config/fish/completions/genplug.fish

exit codes: 0 success, 2 usage error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="shell that reads the script")


def run(arguments: argparse.Namespace) -> int:
    """Print the script and return the exit code."""
    script = Path(__file__).parent / "completions" / SCRIPTS[arguments.shell]
    print(script.read_text("utf-8"), end="")
    return 0
