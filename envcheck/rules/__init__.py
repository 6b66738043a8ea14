"""One subject each."""
