"""Functional kernels, run in the target interpreter: the standard library, torch, and what is being tested.

Nothing of envcheck is importable here. Errors are relative: the Frobenius norm of the difference over that of a
float32 or float64 reference made from the same inputs.
"""
