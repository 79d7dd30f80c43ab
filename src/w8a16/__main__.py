"""`python -m w8a16`."""

from w8a16.cli import main

if __name__ == "__main__":
    main()
