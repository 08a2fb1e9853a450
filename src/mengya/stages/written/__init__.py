"""What a written model folder has to prove, and what its card says."""
