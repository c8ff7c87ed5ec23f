"""`python -m fedloom`: the same as the command `fedloom`."""

from fedloom.cli.main import main

main()
