"""What an experiment is made of: stages, work, plan."""
