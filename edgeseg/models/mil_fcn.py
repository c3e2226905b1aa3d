"""FCN from image-level labels: multi-class multiple instance learning (Pathak, Shelhamer, Long, Darrell, ICLR 2015 workshop).

Of each image only the list of classes in it is known. The loss looks, for each of them, at the one pixel where the class is most
probable (equation 1); as the probabilities of a pixel add up to one, classes compete and split the image among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.models.fcn import FCN
from edgeseg.models.targets import Target

_IGNORE = 255


class MilFCN(FCN):
    """FCN whose training reads of each target's label map only which classes occur.

    Args:
        background: class 0 is in every image, whatever its labels.
        baseline: the paper's comparison: a classifier of the whole image (multi-label logistic loss of each class's mean
            score) that is applied to each pixel; class 0 scores 0 everywhere, so that others win where they are more likely
            than not.
        classifier_batches: training batches that learn the baseline's classifier before MIL begins, which needs one to start
            from: left to itself it is content with one pixel a class. Background's scores start at zero then.
        init_from_classifier: for each class the row of the last layer of the classifier whose weights are loaded, or None
            for a row of zeros, which background needs (section 3, "initialisation").

    Other options are those of ``FCN``.
    """

    own_loss = True

    def __init__(
        self,
        num_classes: int,
        background: bool = True,
        baseline: bool = False,
        classifier_batches: int = 0,
        init_from_classifier: Sequence[int | None] | None = None,
        stride: int = 32,
        backbone: str = "vgg16",
        width: float = 1.0,
        fc_channels: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, stride, backbone, width, fc_channels, dropout)
        self.background, self.baseline, self.classifier_batches = background, baseline, classifier_batches
        # Named as batch normalisation's counter, which stays behind when a network is exported.
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))
        self.rows = list(init_from_classifier) if init_from_classifier is not None else None

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        scores = self.coarse_scores(x)
        classify = self.baseline or (targets is not None and self._starts())
        if classify:
            scores = torch.cat([torch.zeros_like(scores[:, :1]), scores[:, 1:]], dim=1)
        if targets is None:
            height, width = x.shape[-2:]
            logits: Tensor = self.up(scores)[..., :height, :width]
            return logits
        present = torch.stack([self._present(target.labels, scores.shape[1]) for target in targets])
        if classify:
            return {"classifier": classifier_loss(scores[:, 1:], present[:, 1:])}
        return {"mil": mil_loss(scores, present)}

    def _starts(self) -> bool:
        """Whether this batch is one of the first ``classifier_batches``; counts it."""
        assert isinstance(self.num_batches_tracked, Tensor)
        if not self.training or not self.classifier_batches:
            return False
        self.num_batches_tracked += 1
        return int(self.num_batches_tracked) <= self.classifier_batches

    def _present(self, labels: Tensor, num_classes: int) -> Tensor:
        """(C) bool: which classes an image has."""
        counts = torch.bincount(labels[labels != _IGNORE].flatten(), minlength=num_classes)
        present = counts > 0
        if self.background:
            present[0] = True
        return present

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As ``FCN``'s; the scoring layer copies rows of a classifier's last layer where ``init_from_classifier`` says which."""
        found = super().convert_state(state)
        last = next((name for name in ("classifier.6", "fc") if f"{name}.weight" in state), None)
        if self.rows is None or last is None:
            return found
        weight, bias = state[f"{last}.weight"], state[f"{last}.bias"]
        zero = torch.zeros_like(weight[0])
        rows = torch.stack([zero if row is None else weight[row] for row in self.rows])
        biases = torch.stack([bias.new_zeros(()) if row is None else bias[row] for row in self.rows])
        return {**found, "score.weight": rows[:, :, None, None], "score.bias": biases}


def mil_loss(scores: Tensor, present: Tensor) -> Tensor:
    """Minus the mean, over an image's classes, of log p at the pixel where p is largest (equation 1); the mean over images.

    Args:
        scores: (N, C, h, w) logits.
        present: (N, C) bool; an image without a class counts 0.
    """
    best = F.log_softmax(scores.float(), dim=1).flatten(2).amax(dim=2)
    each = (best * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
    return -each.mean()


def classifier_loss(scores: Tensor, present: Tensor) -> Tensor:
    """Logistic loss of each class's mean score over the image, (N, C, h, w) logits against (N, C) bool."""
    return F.binary_cross_entropy_with_logits(scores.float().mean(dim=(2, 3)), present.float())
