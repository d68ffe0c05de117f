"""Predictions of time, memory and disk, from a short calibrated probe and the cost model; and the past, which corrects them.

    forecasts = predict(stages, store, cache_dir)          # key -> campana.core.spec.Expected
    if missing_knowledge(stages, store, cache_dir):
        probe_in_subprocess(study_path, store_path, cache_dir)

Importing it, and predicting, never loads torch.
"""

from campana.forecast.predict import missing_knowledge, predict
from campana.forecast.process import probe_in_subprocess

__all__ = ["missing_knowledge", "predict", "probe_in_subprocess"]
