"""The subcommands, one module each: ``configure(parser)`` and ``run(args) -> exit code``."""
