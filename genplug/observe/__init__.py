"""The view of a running agent from outside: log events, metrics, status and HTTP endpoints. It reads values only."""
