"""Analyses of traces and run folders: one file an analysis, its page on top."""
