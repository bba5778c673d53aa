"""What is on the node: ``Host`` (the only door to its file system), candidates, devices, stable IDs, change notices."""
