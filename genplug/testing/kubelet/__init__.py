"""A kubelet stand-in for the tests of device plugins. It knows the wire types only, and nothing of the agent."""
