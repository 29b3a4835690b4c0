"""Work that outlives the process which asked for it. Read `interface` first."""
