"""The governance record of a node and of a release: which plugin runs where, with which rights, drivers and rules."""
