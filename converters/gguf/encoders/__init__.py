"""How the bytes of each type's blocks are found."""
