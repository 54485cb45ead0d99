"""The checks of `gpu.py`, one module each."""
