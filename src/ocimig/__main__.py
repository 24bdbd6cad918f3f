"""`python -m ocimig`: the same program."""

from ocimig.cli.main import main

if __name__ == "__main__":
    main()
