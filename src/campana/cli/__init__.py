"""The commands a person types. Data goes to stdout, talk to stderr; a user's mistake ends without a traceback."""

from campana.cli.app import main

__all__ = ["main"]
