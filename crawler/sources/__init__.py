"""Channels that find candidates, one file each, behind the `Source` of `interface.py`."""
