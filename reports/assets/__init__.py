"""Stylesheet, script and icon of the site."""
