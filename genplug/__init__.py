"""genplug: one process per Kubernetes node that offers any hardware to pods, by description."""

__version__ = "0.1.0"
