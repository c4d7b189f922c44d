"""Analyses of traces and run folders: one file a verb."""
