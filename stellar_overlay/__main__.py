"""``python -m stellar_overlay``: the same as the console script."""

from stellar_overlay.tools.cli import main

main()
