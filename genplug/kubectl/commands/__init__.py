"""The commands of ``kubectl genplug``: a module per command, as in ``genplug.cli``."""
