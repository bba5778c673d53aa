"""Decodes the commands that probes and ``preStart`` run, and checks them against the policy."""

from genplug.config.decode.values import ValueDecoder, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import Node, ScalarNode
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.policy import Policy
from genplug.spec.template import Template


def decode_command(
    node: Node | None, where: str, values: ValueDecoder, policy: Policy | None, diagnostics: Diagnostics
) -> tuple[Template, ...]:
    """Return the path of a program and its arguments; empty if there is none. With None as policy, all are allowed."""
    if not items(node):
        return ()
    arguments = tuple(values.template(item, where) for item in items(node))
    program = items(node)[0]
    if arguments[0] is not None and isinstance(program, ScalarNode):
        width = max(len(program.text), 1)
        # '..' could leave a directory that a glob allows.
        if arguments[0].names or not program.text.startswith("/") or ".." in program.text.split("/"):
            message = f"{program.text!r} is not the absolute path of a program"
            hint = "write the absolute path, without templates and without '..'"
            diagnostics.add(ErrorCode.PATH, program.at(0), message, key_path=where, hint=hint, width=width)
        elif policy is not None and (error := policy.exec_error(program.text)):
            message, hint = f"running {program.text!r} is {error}", policy.help
            diagnostics.add(ErrorCode.NOT_ALLOWED, program.at(0), message, key_path=where, hint=hint, width=width)
    return tuple(argument for argument in arguments if argument is not None)
