"""The method `k-fold-finetuning`: a trained classifier continues learning from a few images of another device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
from pydantic import Field
from torch import Tensor

from micraframe import registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.batching import batches
from micraframe.config import IMAGE_LEVEL, MICRA_NET, DatasetChoice, MethodChoice, resolve_choice
from micraframe.datasets.sources import LazySamples
from micraframe.errors import ConfigError, DataError, counted, reason_of
from micraframe.interfaces import ClassRule, Method, Model
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.modelfile import load_model
from micraframe.parameters import Parameters
from micraframe.training import ClassifierRecipe
from micraframe.training.examples import seed_for
from micraframe.training.finetune import UNFREEZE
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Sample, Scores

_FOLD: Final = "fold-"


@final
class KFoldFinetuning(Method["KFoldFinetuning.Params"]):
    """Fine-tuning as in the MICRA-Net paper, which adapts a model to the images of a third laboratory.

    The images of the new device are divided into folds. For each fold, a copy of the source model continues learning
    from the images of the other folds, and the fold selects its best parameters; probabilities and maps are the means
    over the copies. Batch normalisations that do not learn keep their statistics, too.

    The source model is trained on `dataset`, another one than the study's, or read from a saved model. It is
    trained again in every run of a study: for many runs, train once and name the `models`. Annotating what the source
    learned from is not part of the annotation cost, which is that of all training images that the method is given.

    The paper takes 5 source models, and repeats 5 times from each: that is seeds 0 to 24 here.

    Bilodeau, A. et al. "Microscopy analysis neural network to solve detection, enumeration and segmentation from
    image-level annotations". Nature Machine Intelligence 4 (2022), "Multi-device analysis".
    """

    class Params(Parameters):
        source: MethodChoice = Field(
            MICRA_NET, description="The micra-net that learned, or learns, from images of the first device."
        )
        dataset: DatasetChoice | None = Field(
            None, description="Dataset that the source model is trained on; null: it is one of `models`."
        )
        sources: int = Field(
            5, ge=1, description="Number of source models that are trained on `dataset`; a run's is its seed modulo it."
        )
        models: tuple[Path, ...] = Field(
            (),
            description="Instead of dataset: folders of saved models, with the network of `source`; a run takes the "
            "one at its seed modulo their number. A study does not notice when their content changes.",
        )
        rename: dict[str, str] = Field(
            {}, description="New names of the source's classes, as the new dataset calls them: {old: new}."
        )
        images: int | None = Field(
            None,
            ge=2,
            description="Number of images (or patients, where a dataset groups them) to learn from, with all their "
            "crops, drawn by the seed; null: all.",
        )
        folds: int = Field(4, ge=2, description="Number of folds.")
        unfreeze: str = Field(
            "all",
            pattern=f"^(?:nothing|{UNFREEZE.pattern})$",
            description="The layers that learn: linear, linear+4 or linear+3,4 (stages of the backbone), or all; "
            "nothing: the source model as it is, without folds.",
        )
        training: ClassifierRecipe = Field(ClassifierRecipe(), description="How the copies continue learning.")

    learns_from = frozenset({Annotation.LABELS})
    uses_validation = False

    def __init__(self, params: KFoldFinetuning.Params) -> None:
        """Build the source method.

        Raises:
            ConfigError: If it is not micra-net.
        """
        super().__init__(params)
        source = registry.build("method", params.source.name, **params.source.params)
        if not isinstance(source, MicraNet):
            raise ConfigError(
                f"k-fold-finetuning: expected source micra-net, got {params.source.name!r}; choose micra-net"
            )
        self._source = source

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> MeanModel:
        """Obtain the source model and fine-tune a copy for each fold.

        Each training has a folder of its own in the context's folder, `source` and `fold-0` onwards, and resumes by
        itself.

        Raises:
            DataError: If there are fewer images than folds or `images`, or the source has other classes or channels.
            ConfigError: If a saved model does not fit the source method; or see `untrained`.
        """
        params = self.params
        self._check_origin()
        source = self._trained(context)
        if params.unfreeze == "nothing":
            source.check_alike(info, params.rename)
            return MeanModel((MicraNetModel(source.params, source.classifier, info),))
        groups = [sample.group or sample.id for sample in train]
        folds = deal(groups, params.images, params.folds, context.seed)
        tuned = []
        for number, held in enumerate(folds):
            rest = [place for other in folds if other is not held for place in other]
            learning, selecting = (LazySamples(sorted(places), train.__getitem__) for places in (rest, held))
            part = context.nested(f"{_FOLD}{number}", seed_for(context.seed, "fold", number) % 2**32)
            tuned.append(
                source.finetune(params.unfreeze, params.training, learning, selecting, info, part, params.rename)
            )
        return MeanModel(tuple(tuned))

    def untrained(self, info: DatasetInfo) -> MeanModel:
        """Return copies that have learned nothing.

        Raises:
            ConfigError: If the source model has no origin, or two.
        """
        self._check_origin()
        copies = 1 if self.params.unfreeze == "nothing" else self.params.folds
        return MeanModel(tuple(self._source.untrained(info) for _ in range(copies)))

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> MeanModel:
        """Return the model of these copies."""
        parts: dict[int, dict[str, Tensor]] = {0: {}}
        for key, tensor in state.items():
            fold, _, name = key.partition(".")
            parts.setdefault(int(fold.removeprefix(_FOLD)), {})[name] = tensor
        return MeanModel(tuple(self._source.restore(parts[number], info, device) for number in sorted(parts)))

    def _check_origin(self) -> None:
        if (self.params.dataset is None) == (not self.params.models):
            raise ConfigError(
                "k-fold-finetuning: expected one of dataset and models, got "
                f"{'both' if self.params.models else 'neither'}; say where the source model comes from"
            )

    def _trained(self, context: FitContext) -> MicraNetModel:
        """Return the source model of this seed."""
        params = self.params
        if params.dataset is None:
            return self._saved(params.models[context.seed % len(params.models)])
        seed = context.seed % params.sources
        dataset = registry.build("dataset", params.dataset.name, **params.dataset.params)
        annotator = registry.build("annotator", IMAGE_LEVEL.name)
        train, valid = (
            annotate_samples(dataset.samples(split), annotator, self._source.learns_from, seed)[0]
            for split in ("train", "valid")
        )
        return self._source.fit(train, valid, dataset.info(), context.nested("source", seed))

    def _saved(self, folder: Path) -> MicraNetModel:
        saved = load_model(folder)
        try:
            if saved.method.name != MICRA_NET.name:
                raise RuntimeError(f"it is one of method {saved.method.name}")
            theirs, ours = (resolve_choice("method", one).params for one in (saved.method, self.params.source))
            # The weights fit whatever their features are pooled by.
            for name in ("backbone", "pooling"):
                if theirs[name] != ours[name]:
                    raise RuntimeError(f"its {name} is {theirs[name]}, not {ours[name]}")
            return self._source.restore(saved.tensors, saved.info, "cpu")
        except (RuntimeError, KeyError) as error:
            raise ConfigError(
                f"{folder}: expected a model of the network that `source` describes, but {reason_of(error)}; give "
                "source the parameters that the model was trained with"
            ) from error


@final
class MeanModel(Model):
    """The mean of several models: of their presence probabilities, and of their maps.

    Attributes:
        models: Of the same classes.
    """

    def __init__(self, models: tuple[MicraNetModel, ...]) -> None:
        self.models = models

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, in order; the rule is given the mean probabilities."""
        if len(self.models) == 1:
            yield from self.models[0].score(images, rule)
            return
        for batch in batches(images):
            found = [[scores.presence for scores in model.score(batch, lambda presence: ())] for model in self.models]
            means = np.asarray(np.mean(found, axis=0, dtype=np.float64), np.float32)
            for image, presence in zip(batch, means, strict=True):
                yield self._explained(image, presence, rule)

    def state(self) -> Mapping[str, Tensor]:
        """Return the states of all models."""
        return joined_states(model.state() for model in self.models)

    def _explained(self, image: FloatArray, presence: FloatArray, rule: ClassRule) -> Scores:
        classes = tuple(rule(presence))
        if not classes:
            return Scores.without_maps(presence, (image.shape[1], image.shape[2]))
        parts = [scores for model in self.models for scores in model.score([image], lambda presence: classes)]
        maps = np.mean([part.maps for part in parts], axis=0)
        coarse = [part.coarse for part in parts if part.coarse is not None]
        return Scores(presence, classes, maps, coarse=np.mean(coarse, axis=0) if coarse else None)


def joined_states(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the state of a `MeanModel`, from those of its models."""
    return {f"{_FOLD}{number}.{name}": tensor for number, state in enumerate(states) for name, tensor in state.items()}


def deal(groups: Sequence[str], images: int | None, folds: int, seed: int) -> list[list[int]]:
    """Return the positions of the samples of each fold; all samples of a group are in one fold, or in none.

    Args:
        groups: The group of each sample.
        images: Number of groups to draw; None: all.
        folds: Number of folds, whose numbers of groups differ by at most 1.
        seed: Draws the groups and deals them out.

    Raises:
        DataError: If there are fewer groups than folds, or than `images`.
    """
    names = sorted(set(groups))
    if images is not None and images > len(names):
        raise DataError(
            f"k-fold-finetuning: expected at least the {images} training images of parameter images, got "
            f"{counted(len(names), 'image')}; add images, or set at most {len(names)}"
        )
    drawn = [names[place] for place in np.random.default_rng(seed).permutation(len(names))[:images]]
    if len(drawn) < folds:
        raise DataError(
            f"k-fold-finetuning: expected at least {folds} images, one for each fold, got "
            f"{counted(len(drawn), 'image')}; add images, or set fewer folds"
        )
    fold_of = {name: number % folds for number, name in enumerate(drawn)}
    return [[place for place, name in enumerate(groups) if fold_of.get(name) == fold] for fold in range(folds)]
