"""`python -m colbuild` is `colbuild`."""

from colbuild.cli import main

if __name__ == "__main__":
    main()
