"""``python -m mlopskit`` is the command ``mlopskit``."""

from mlopskit.cli import main

if __name__ == "__main__":
    main()
