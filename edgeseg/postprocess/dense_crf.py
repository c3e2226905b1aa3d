"""A dense CRF behind a network: sharp borders from coarse scores (DeepLab, ICLR 2015, section 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import BackendError
from edgeseg.manifest import CrfSpec, OutputSpec
from edgeseg.native import crf
from edgeseg.postprocess.decode import decision_cut

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]


class DenseCrf:
    """Labels of a frame from its scores and its colours.

    Args:
        spec: the manifest's ``crf``.
        threads: of the native code; labels do not depend on it.
        output: what the scores are: logits, or probabilities of one kind or the other; one channel means two classes.

    Raises:
        BackendError: the output has no scores.
    """

    def __init__(self, spec: CrfSpec, threads: int = 1, output: OutputSpec | None = None) -> None:
        self.spec, self.threads, self.output = spec, threads, output or OutputSpec()
        if self.output.kind not in ("logits", "softmax", "sigmoid"):
            raise BackendError(f"a dense CRF on an output of {self.output.kind}", "scores of pixels", "remove $.crf of model.json")
        self._kernels = crf.Kernels(spec.w1, spec.sigma_alpha, spec.sigma_beta, spec.w2, spec.sigma_gamma)
        self._memory = crf.memory()

    def __call__(self, image: NDArray[np.uint8], scores: Scores) -> Labels:
        """Labels (H, W) uint8 of an image (H, W, 3) uint8 BGR with scores (C, h, w) float32, C 1..256.

        Raises:
            BackendError: an array is not of this shape or type.
        """
        return self._infer(image, scores, None)

    def marginals(self, image: NDArray[np.uint8], scores: Scores) -> Scores:
        """The marginals (C, H, W) float32 that the labels are the argmax of; C is 2 for scores of one channel."""
        count = max(2, scores.shape[0]) if scores.ndim == 3 else 2
        found = np.empty((count, *image.shape[:2]), np.float32)
        self._infer(image, scores, found)
        return found

    def _infer(self, image: NDArray[np.uint8], scores: Scores, marginals: Scores | None) -> Labels:
        single = scores.ndim == 3 and scores.shape[0] == 1
        try:
            return crf.dense_crf(
                image,
                self._two_classes(scores) if single else scores,
                self._kernels,
                self.spec.iterations,
                probabilities=self.output.kind != "logits" and not single,
                marginals=marginals,
                threads=self.threads,
                memory=self._memory,
            )
        except ValueError as error:
            raise BackendError(f"dense CRF: {error}", fix="correct $.output, $.classes or $.crf of model.json") from error

    def _two_classes(self, scores: Scores) -> Scores:
        """Logits of "no" and "yes"; yes wins where the score exceeds the decision's cut."""
        cut = float(np.clip(decision_cut(self.output), -1e30, 1e30))
        yes = scores[0]
        if self.output.kind != "logits":
            yes, cut = _logit(yes), float(_logit(np.float32(cut)))
        return np.stack([np.zeros_like(yes), yes - np.float32(cut)])


def _logit(probability: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    inside = np.clip(probability, 1e-7, 1 - 1e-7).astype(np.float32)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)
