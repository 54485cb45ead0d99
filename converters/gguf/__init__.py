"""The GGUF container: names, types, encoders, metadata and layout of its files."""

from fluxconv.converters.gguf.encoding import decode, encode

__all__ = ["decode", "encode"]
