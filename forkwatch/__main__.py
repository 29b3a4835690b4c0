"""`python -m forkwatch` is the same program as `forkwatch`."""

from forkwatch.cli.entry import main

main()
