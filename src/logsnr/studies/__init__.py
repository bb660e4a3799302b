"""What compares models, or looks at data, schedules and runs."""
