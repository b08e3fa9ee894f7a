"""python -m albireo: the same as the albireo command."""

from albireo.cli.main import main

if __name__ == "__main__":
    main()
