"""Images larger than memory: where the classes are, as a probability map and as ranked proposals."""

from micraframe.sweep.run import SweepOptions, SweepReport, sweep_image

__all__ = ["SweepOptions", "SweepReport", "sweep_image"]
