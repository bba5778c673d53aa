"""Archives of a node: writing what configurations read, and opening an archive as a root."""
