"""The metrics that the MICRA-Net paper made for its data."""
