"""A fake node for the tests of genplug: device trees, configuration files, files that hang."""
