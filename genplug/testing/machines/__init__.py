"""A machine with the hardware of each recipe, and its faults, for the tests and the demo."""
