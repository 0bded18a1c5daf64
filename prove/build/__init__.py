"""From a Job to a complete MMSegmentation config."""
