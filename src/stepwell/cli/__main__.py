"""``python -m stepwell.cli``."""

from stepwell.cli import main

if __name__ == "__main__":
    main()
