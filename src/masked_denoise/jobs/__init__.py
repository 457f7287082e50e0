"""Jobs on many files: survey them, plan where results go, fit models, denoise, preview, demo."""
