"""`python -m prove.cli`: the `prove` command where it is not on the path."""

from prove.cli import main

main()
