"""`forkwatch daemon`: a supervisor that only asks for work, and worker processes that do it."""
