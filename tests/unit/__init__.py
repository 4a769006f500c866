"""Pure tests of pure code: the whole folder in seconds, nothing started."""
