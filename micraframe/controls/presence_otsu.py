"""The control to beat if structures stand out: labels teach presence, and Otsu's threshold of the image locates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import ndimage

from micraframe.batching import with_images
from micraframe.classifier import part_of
from micraframe.config import MICRA_NET, MethodChoice, build_learner
from micraframe.controls.intensity_otsu import intensity_map
from micraframe.cues import relative_intensity
from micraframe.interfaces import ClassRule, Method, Model
from micraframe.metrics.precision_recall import area_under_roc
from micraframe.parameters import Parameters
from micraframe.thresholds import otsu
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, IntArray, Sample, Scores

ContrastName = Literal["bright", "dark", "deviation"]

CONTRASTS: Final[tuple[ContrastName, ...]] = ("bright", "dark", "deviation")
"""How a structure may stand out, the simplest first."""

_IMAGES: Final = 100
"""Most images with a class, and most without it, among which its contrast is chosen."""

_STATE: Final = "classifier."


@final
class PresenceOtsu(Method["PresenceOtsu.Params"]):
    """A classifier, learned from image-level labels, decides which classes are present; the map is the image itself.

    The head's Otsu threshold segments the image's intensities, bright or dark, or their local standard deviation. One
    of the three is chosen for each class without masks (`choose_contrast`).
    """

    class Params(Parameters):
        classifier: MethodChoice = Field(
            MICRA_NET,
            description="Method that learns from labels which classes are in an image; its maps are not used.",
        )
        contrast: ContrastName | Literal["auto"] = Field(
            "auto",
            description="How structures stand out: bright, dark, or by the local deviation of the intensity; auto: "
            "the one that agrees best with the training labels, for each class.",
        )
        radius: int = Field(5, ge=1, description="Radius in pixels of the square of the local standard deviation.")

    learns_from = frozenset({Annotation.LABELS})
    inference_params = frozenset({"contrast"})

    def __init__(self, params: PresenceOtsu.Params) -> None:
        """Build the classifier.

        Raises:
            ConfigError: If it cannot learn from labels.
            PluginError: If it is not installed.
        """
        super().__init__(params)
        self._classifier = build_learner("classifier", params.classifier, Annotation.LABELS)

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> PresenceOtsuModel:
        """Choose the contrast of each class, and train the classifier."""
        chosen = choose_contrasts(train, self.params.radius)
        return PresenceOtsuModel(self.params, self._classifier.fit(train, valid, info, context), chosen)

    def restore(self, state: Mapping[str, torch.Tensor], info: DatasetInfo, device: str) -> PresenceOtsuModel:
        """Return the model with this classifier and these contrasts."""
        classifier = self._classifier.restore(part_of(state, _STATE), info, device)
        return PresenceOtsuModel(self.params, classifier, state["contrasts"].numpy().astype(np.int32))


@final
class PresenceOtsuModel(Model):
    """A classifier, and the contrast of each class.

    Attributes:
        contrasts: int32 (K,): the index in `CONTRASTS` that was chosen for each class.
    """

    def __init__(self, params: PresenceOtsu.Params, classifier: Model, contrasts: IntArray) -> None:
        self.contrasts = contrasts
        self._params = params
        self._classifier = classifier

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image: the classifier's presence, and maps of the intensities."""
        name = f"classifier {self._params.classifier.name}"
        for image, found in with_images(images, lambda some: self._classifier.score(some, lambda presence: ()), name):
            classes = tuple(rule(found.presence))
            maps = [contrast_map(image, self._contrast(index), self._params.radius) for index in classes]
            yield Scores(found.presence, classes, np.array(maps, np.float32).reshape(-1, *image.shape[1:]))

    def state(self) -> Mapping[str, torch.Tensor]:
        """Return the classifier's state, and the contrasts."""
        inner = {_STATE + name: value for name, value in self._classifier.state().items()}
        return {**inner, "contrasts": torch.from_numpy(self.contrasts.copy())}

    def _contrast(self, index: int) -> ContrastName:
        fixed = self._params.contrast
        return CONTRASTS[self.contrasts[index]] if fixed == "auto" else fixed


def contrast_map(image: FloatArray, contrast: ContrastName, radius: int) -> FloatArray:
    """Return how much each pixel of an image (C, H, W) stands out, float32 (H, W), in [0, 1]; 0 without contrast.

    Args:
        image: Its mean over the channels is the intensity.
        contrast: The intensity scaled to [0, 1], the same upside down, or the standard deviation of the intensity in a
            square around each pixel, divided by its maximum.
        radius: Radius of the square in pixels.
    """
    if contrast != "deviation":
        return intensity_map(image, contrast)
    # From an intensity in [0, 1], so that the difference of squares stays exact enough.
    intensity = intensity_map(image, "bright").astype(np.float64)
    mean, square = (ndimage.uniform_filter(values, 2 * radius + 1) for values in (intensity, intensity**2))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    top = deviation.max()
    return np.asarray(deviation / top if top > 0 else deviation, np.float32)


def choose_contrasts(samples: Sequence[Sample], radius: int) -> IntArray:
    """Return for each class the index in `CONTRASTS` of the contrast that agrees best with the labels, int32 (K,).

    At most 100 images with the class and 100 without it, evenly spaced among the samples, are used.
    """
    labels = np.array([sample.labels for sample in samples], np.bool_)
    chosen = []
    for present in labels.T:
        containing, lacking = (
            [samples[index].image for index in _evenly(np.flatnonzero(kind))] for kind in (present, ~present)
        )
        chosen.append(CONTRASTS.index(choose_contrast(containing, lacking, radius)))
    return np.array(chosen, np.int32)


def choose_contrast(containing: Sequence[FloatArray], lacking: Sequence[FloatArray], radius: int) -> ContrastName:
    """Return the contrast whose Otsu mask best separates pixels that are unusual in images without the class.

    With x the intensity of a pixel minus the median of its image, and F the distribution function of x over the images
    *without* the class, u = |2 F(x) - 1| says how unusual a pixel is there: 0 for the commonest, 1 for what is darker
    or brighter than anything. In each image *with* the class, a contrast's mask M, its map above its Otsu threshold,
    agrees with the labels as far as the pixels inside it are more unusual than those outside:

        A = P(u_p > u_q) + P(u_p = u_q) / 2,  p in M, q not in M,

    the area under the ROC curve; 1/2 where M is empty or everything. The contrast with the highest mean A wins; ties
    go to the first.

    Args:
        containing: Images with the class, each (C, H, W); if there are none, the result is bright.
        lacking: Images without it; if there are none, `containing`, most of whose pixels are background, is used.
        radius: See `contrast_map`.
    """
    if not containing:
        return CONTRASTS[0]
    reference = np.sort(np.concatenate([relative_intensity(image).ravel() for image in lacking or containing]))
    agreement = np.zeros(len(CONTRASTS))
    for image in containing:
        values = relative_intensity(image)
        below = sum(np.searchsorted(reference, values, side) for side in ("left", "right"))
        unusual = np.abs(below / len(reference) - 1)
        for index, contrast in enumerate(CONTRASTS):
            mapped = contrast_map(image, contrast, radius)
            agreement[index] += area_under_roc(mapped > otsu(mapped), unusual)
    return CONTRASTS[int(agreement.argmax())]


def _evenly(indices: npt.NDArray[np.intp]) -> list[int]:
    """Return at most `_IMAGES` of the indices, evenly spaced."""
    steps = np.linspace(0, len(indices) - 1, min(len(indices), _IMAGES)).astype(int)
    return [int(index) for index in indices[steps]]
