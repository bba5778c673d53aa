"""The contents of a configuration as frozen values, and its small languages: globs, templates, regular expressions.

Nothing here reads files or parses YAML; ``genplug.config`` builds these values.
"""
