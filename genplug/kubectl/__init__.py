"""The kubectl plugin ``kubectl genplug``: commands about the agents of a whole cluster.

The plugin runs on the machine of an operator. It starts the operator's own ``kubectl``, and therefore has exactly the
rights of the operator.
"""
