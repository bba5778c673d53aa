"""What a configuration says, as frozen values, and the small languages in it: globs, templates, regular expressions.

Nothing here reads files or parses YAML; ``genplug.config`` builds these values.
"""
