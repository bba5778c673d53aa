"""Archives of what configurations read of a node: ``writer`` makes them, ``archive`` unpacks them."""
