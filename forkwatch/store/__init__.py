"""The database: the only source of truth. Tables in `models`, the operations on them in `store`."""
