"""Images larger than memory: where in them the classes are, as a probability map and as ranked proposals."""

from micraframe.sweep.run import Options, Report, sweep_file, sweep_image

__all__ = ["Options", "Report", "sweep_file", "sweep_image"]
