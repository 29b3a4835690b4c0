"""Channels that find candidates, one file each: what is declared, what is tagged, what is named alike."""
