"""Modified or authentic, from outputs alone. Read `interface` first."""
