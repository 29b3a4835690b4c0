"""The reader's side of forkwatch: documents, site and digest from plain views. Start with `interface`."""
