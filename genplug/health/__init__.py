"""The health of devices: their presence, the probes that check them, and the verdicts that follow."""
