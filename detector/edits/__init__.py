"""Edit kinds: what a diff means. One file for each family of kinds, one public `find_…` function in each."""
