"""`python -m continual` is the command `continual`."""

from continual.cli import main

if __name__ == "__main__":
    main()
