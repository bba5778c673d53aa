"""The hardware of the node: ``Host`` (the only access to its file system), candidates, devices, IDs, change events."""
