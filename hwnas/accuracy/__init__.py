"""How accurate networks are: measured on images, and predicted from their arch."""

from hwnas.accuracy.evaluate import Evaluator, logits, recalibrate, top1
from hwnas.accuracy.predictor import fit_accuracy

__all__ = ["Evaluator", "fit_accuracy", "logits", "recalibrate", "top1"]
