"""Command line tools; everything heavy is imported by the command that needs it."""
