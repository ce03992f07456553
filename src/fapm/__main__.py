"""``python -m fapm``: the command line where the command ``fapm`` is not on the path."""

from fapm.cli.app import main

if __name__ == "__main__":
    main()
