"""Rules that score an answer, one file each."""
