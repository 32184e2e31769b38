"""`python -m fathom` is the command `fathom`."""

from .cli import main

main()
