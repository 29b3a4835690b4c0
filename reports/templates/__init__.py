"""Jinja templates of the site and the digest."""
