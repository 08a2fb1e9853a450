"""`python -m mengya` and `torchrun -m mengya` are the `mengya` command."""

from mengya.cli import main

if __name__ == "__main__":
    main()
