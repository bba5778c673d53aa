"""A fake node for the tests and the demo of genplug: devices, configuration files, and files whose reads hang."""
