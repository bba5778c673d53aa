"""``python -m tests.fuzz.single PROGRAM TARGET OPTION...``: run libFuzzer itself with a target, for example a merge."""

import sys

import atheris

from tests.fuzz.instrument import load_instrumented
from tests.fuzz.target import try_input


def main(program: str, name: str, *options: str) -> None:
    (target,) = load_instrumented([name])

    def run(content: bytes) -> None:
        try_input(target, content)

    # libFuzzer starts the program again, with other options.
    atheris.Setup([program, *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
