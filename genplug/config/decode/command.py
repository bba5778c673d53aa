"""Decoding of commands: programs that probes and ``preStart`` run, and what the policy says to them."""

from genplug.config.decode.values import ValueDecoder, items
from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.yaml_tree import Node, ScalarNode
from genplug.spec.policy import Policy
from genplug.spec.template import Template


def read_command(
    node: Node | None, where: str, texts: ValueDecoder, policy: Policy | None, problems: Diagnostics
) -> tuple[Template, ...]:
    """Return a program's path and its arguments; none where nothing is written. Without a policy all are allowed."""
    if not items(node):
        return ()
    arguments = tuple(texts.template(item, where) for item in items(node))
    program = items(node)[0]
    if arguments[0] is not None and isinstance(program, ScalarNode):
        width = max(len(program.text), 1)
        # What climbs would be allowed by a glob over the directory that it climbs out of.
        if arguments[0].names or not program.text.startswith("/") or ".." in program.text.split("/"):
            message = f"{program.text!r} is not the path of a program"
            hint = "write it in full, without templates and without '..'"
            problems.add(ErrorCode.PATH, program.at(0), message, key_path=where, hint=hint, width=width)
        elif policy is not None and (fault := policy.exec_error(program.text)):
            message, hint = f"to run {program.text!r} is {fault}", policy.help
            problems.add(ErrorCode.NOT_ALLOWED, program.at(0), message, key_path=where, hint=hint, width=width)
    return tuple(argument for argument in arguments if argument is not None)
