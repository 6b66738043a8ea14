"""Binaries read from their bytes: nothing is imported, loaded or run, so a broken extension cannot break the reader."""
