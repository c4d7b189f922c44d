"""What the rows of a run folder say: one file an analysis, each from stored rows alone."""
