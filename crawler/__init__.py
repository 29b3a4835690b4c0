"""The Hub: candidates, snapshots, ranged reads and downloads. Start with `interface`."""
