"""``python -m tadp_da.cli``, for launchers that start modules."""

from tadp_da.cli import main

if __name__ == "__main__":
    main()
