"""The verbs of this project: each module is a command with --help, called by a nox session."""
