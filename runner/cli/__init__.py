"""The command line: the only package that prints or exits. Each command is a module of `commands`."""
