"""The machine a run is on: device, files, optional packages, seeding. Knows nothing of models or data."""
