"""The error that every command reports. Each command imports this module, so it imports nothing."""


class RootError(Exception):
    """The value of ``--root`` or a similar option is neither a directory nor a valid archive. Exit code 2."""
