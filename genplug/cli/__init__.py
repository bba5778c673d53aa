"""The commands of genplug, each in the module of its name. A command imports large modules only when it needs them."""
