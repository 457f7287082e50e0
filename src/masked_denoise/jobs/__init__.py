"""Jobs on many files: what they hold, where results go, models fitted on them, denoising, demo."""
