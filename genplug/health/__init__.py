"""What is fit to use and why not: verdicts over an inventory. Probes beyond presence find their place here."""
