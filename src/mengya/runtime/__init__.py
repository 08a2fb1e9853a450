"""The machine under a run: device, files, optional packages, seeding. Knows nothing of models or data."""
