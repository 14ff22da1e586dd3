"""One module for each room that reads files from outside; each has `DRIVERS`, a tuple of `tests.fuzz.frame.Driver`."""
