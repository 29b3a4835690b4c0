"""`python -m forkwatch` is the same program as `forkwatch`."""

from forkwatch.cli.app import main

main()
