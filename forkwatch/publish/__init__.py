"""Taking a built site to where readers are. Read `interface` first; one file a destination."""
