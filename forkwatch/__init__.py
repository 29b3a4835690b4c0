"""Find the forks of a signed open-weight release, prove what was changed, measure what it did to safety."""

__version__ = "0.1.0"
