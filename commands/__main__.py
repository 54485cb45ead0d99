"""`python -m fluxconv.commands`, the same as `fluxconv`."""

from fluxconv.commands.main import main

main()
