"""What is put on the target interpreter's path: one package, so that none of our names can hide one of theirs."""
