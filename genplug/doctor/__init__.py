"""``genplug doctor``: ``gather`` reads facts of the machine, and the checks are functions of these facts."""
