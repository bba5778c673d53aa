"""Worker processes that run probes, and the pools that own them."""
