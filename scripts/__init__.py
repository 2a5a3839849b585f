"""Commands: each is a subcommand of `servegym`."""
