"""How much is coming: signals, baselines, forecasts and their calibration."""
