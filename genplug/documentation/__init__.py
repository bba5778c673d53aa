"""The documentation of keys, codes, alerts, events and metrics for ``genplug explain``, from sources of the site."""
