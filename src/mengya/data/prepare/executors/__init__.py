"""The processes that encode chunks: of this machine, or of a cluster."""
