"""``python -m fapm.cli``: the same as ``python -m fapm``."""

from fapm.cli.app import main

if __name__ == "__main__":
    main()
