"""One machine without the internet: a loopback hub and model families built here (DESIGN section 9)."""
