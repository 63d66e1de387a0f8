"""Autologging: what scikit-learn, XGBoost, LightGBM, Keras and torch train is logged by itself."""

from mlopskit.integrations.autolog.switch import FRAMEWORKS, Autolog, autolog

__all__ = ["FRAMEWORKS", "Autolog", "autolog"]
