"""The GGUF container: names, metadata and layout of its files."""
