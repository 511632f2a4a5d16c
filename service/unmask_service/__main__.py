"""`python -m unmask_service` is `unmask`."""

from unmask_service.cli import main

if __name__ == "__main__":
    main()
