"""What a run reads and all that decides its result, compared with what a folder has."""
