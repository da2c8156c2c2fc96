"""Figures of an accuracy model, as values for answers and files; no import of torch."""

from __future__ import annotations

from pydantic import Field

from hwnas.files import Spec


class ModelQuality(Spec):
    """Cross-validated accuracy of a model (`hwnas.accuracy.model.Quality`); None if unknown."""

    kendall_tau: float | None
    rmse: float | None
    within_one_sigma: float | None


class AccuracyModelFigures(Spec):
    """The accuracy model of a search: number of fitted networks, and its quality by cross-validation.

    Attributes:
        subnets: number of networks.
        stagewise: quality of the stage-wise model.
        ensemble: quality of its mean with the predictor, by default the ensemble.
        predictor: name of the predictor; left out of files if it is the ensemble, as in those of older versions.
    """

    subnets: int
    stagewise: ModelQuality
    ensemble: ModelQuality
    predictor: str = Field(default="ensemble", exclude_if=lambda predictor: predictor == "ensemble")

    @property
    def words(self) -> str:
        """Kendall τ and RMSE of both models."""
        quality = (
            f"{name} τ {one.kendall_tau or 0:.3f}, RMSE {one.rmse or 0:.2%}"
            for name, one in (("stagewise", self.stagewise), (self.predictor, self.ensemble))
        )
        return f"on {self.subnets} subnets, by cross-validation: {'; '.join(quality)}"
