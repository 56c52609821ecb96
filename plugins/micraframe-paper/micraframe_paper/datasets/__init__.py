"""The datasets of the MICRA-Net paper, each read from the files that its publisher offers."""
