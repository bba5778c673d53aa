"""The commands, one module each; whatever is heavy is imported inside the command that needs it."""
