"""What people and their tools see of a running agent: log events, metrics, health and status pages."""
