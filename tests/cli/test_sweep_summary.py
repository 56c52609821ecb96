"""What `micraframe sweep` prints of its report."""

from __future__ import annotations

from micraframe.cli.sweep import summary
from micraframe.sweep.run import SweepAgreement, SweepReport


def report(agreement: SweepAgreement | None = None) -> SweepReport:
    return SweepReport(
        image="slide.tif",
        model="model",
        weights="a" * 64,
        versions={"torch": "2"},
        fingerprint="b" * 64,
        size=(2000, 3000),
        classes=("ring",),
        mode="both" if agreement else "dense",
        window=(64, 64),
        window_asked=(64, 64),
        step=16,
        windows=22500,
        presence_threshold=0.5,
        precision="float32",
        device="cpu",
        proposals=12,
        area=0.034,
        seconds={"dense": 41.2},
        agreement=agreement,
        notes=("slide.tif: something to know",),
    )


def test_a_summary_has_what_was_found_and_no_internals() -> None:
    assert list(summary(report())) == [
        "Proposals: 12, covering 3.40% of the image",
        "Windows: 22500 of 64 x 64 pixels, 16 pixels apart",
        "Computing time (dense): 41 s",
    ]


def test_two_sweeps_are_compared_in_one_line() -> None:
    agreement = SweepAgreement(0.998, {"ring": 0.998}, 0.01, 9, 10, 11, 10, 12, 11, 40.0)
    assert (
        "Dense against exact: correlation 0.998; 12 and 11 proposals, 10 in common; dense is 40 times as fast"
        in summary(report(agreement))
    )
