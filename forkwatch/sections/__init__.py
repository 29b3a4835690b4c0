"""The sections of forkwatch.toml. `forkwatch/settings.py` puts them together and reads the file."""
