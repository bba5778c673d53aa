"""A soak of genplug on a real cluster of one node: random changes, and a comparison with a model after each of them."""
