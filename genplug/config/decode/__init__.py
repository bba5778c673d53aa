"""Decoders: from validated YAML trees to the values of ``genplug.spec``."""
