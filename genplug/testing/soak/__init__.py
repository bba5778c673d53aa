"""A soak of the agent: random changes and faults of a node, with a model of the device lists that must result.

``python -m genplug.testing.soak --help`` describes the command, docs/contributing/soak.md the checks.

- :mod:`~genplug.testing.soak.model` is the expected state of the node, as frozen values.
- :mod:`~genplug.testing.soak.actions` has the kinds of steps: how a step is chosen, what it changes in the model (both
  are pure functions), and how it is executed on the node.
- :mod:`~genplug.testing.soak.sequence` generates the sequence of steps of a seed.
- :mod:`~genplug.testing.soak.machine` is the node with the agent, a real process.
- :mod:`~genplug.testing.soak.checks` compares the agent with the model.
- :mod:`~genplug.testing.soak.run` executes the steps, checks and measures.
"""
