"""Each kernel against its reference and the limits of the machine."""
