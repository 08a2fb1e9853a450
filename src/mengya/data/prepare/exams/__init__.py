"""What a run looks for of exams, and where it stands."""
